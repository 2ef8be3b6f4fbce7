"""A linear probe: multinomial logistic regression on one of the frozen model's states.

D width, C classes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.attachment import attach, join
from lmlite.adapt.method import Method, Params, Squares
from lmlite.models.lm import LM


def _classify(network, params, states):
    probe = params["probe"]
    return network.apply(params, "final", states) @ probe["kernel"] + probe["bias"]


@dataclasses.dataclass(frozen=True)
class LinearProbe(Method):
    """softmax(W norm(h) + b), W [D, C] starting at zero.

    h is the state at the prompt's last token, or the mean of an encoder's token states.
    """

    foldable = False
    head = staticmethod(_classify)

    def rules(self, lm):
        return ((r"probe/.*", "probe"), (".*", tree.FROZEN))

    def init(self, lm, key, classes):
        kernel = jnp.zeros((lm.config.width, classes))
        return {"probe": {"kernel": kernel, "bias": jnp.zeros(classes)}}


def attach_headed(
    method: Method, lm: LM, key: jax.Array, classes: int, squares: Squares | None = None
) -> tuple[LM, dict[str, str]]:
    """`attach` for a model that answers by classes alone: a probe, of the label 'head', trains
    beside the method.
    """
    headed, labels = attach(LinearProbe(), lm, key, classes)
    adapted, own = attach(method, headed, key, classes, squares)
    return adapted, own | _head(labels)


def join_headed(method: Method, lm: LM, added: Params, probe: Params) -> tuple[LM, dict[str, str]]:
    """`join` for such a model, with the probe as it was trained beside another method."""
    headed, labels = join(LinearProbe(), lm, {"probe": probe})
    adapted, own = join(method, headed, added)
    return adapted, own | _head(labels)


def _head(labels: dict[str, str]) -> dict[str, str]:
    return {path: tree.HEAD for path, name in labels.items() if name != tree.FROZEN}


def randomly_headed(lm: LM, key: jax.Array, classes: int) -> LM:
    """The model under an untrained head that tells its states apart, where one of zeros would not:
    for gradients before any training.
    """
    headed, _ = attach(LinearProbe(), lm, key, classes)
    kernel = jax.random.normal(key, (lm.config.width, classes)) * lm.config.width**-0.5
    probe = headed.params["probe"] | {"kernel": kernel}
    return dataclasses.replace(headed, params=headed.params | {"probe": probe})
