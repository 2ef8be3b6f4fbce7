"""A linear probe: multinomial logistic regression on the frozen model's last state.

D width, C classes.
"""

import dataclasses

import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.method import Method


def _classify(network, params, states):
    probe = params["probe"]
    return network.apply(params, "final", states) @ probe["kernel"] + probe["bias"]


@dataclasses.dataclass(frozen=True)
class LinearProbe(Method):
    """softmax(W norm(h) + b), h the state at the prompt's last token; W [D, C] starts at zero."""

    foldable = False
    head = staticmethod(_classify)

    def rules(self, lm):
        return ((r"probe/.*", "probe"), (".*", tree.FROZEN))

    def init(self, lm, key, classes):
        kernel = jnp.zeros((lm.config.width, classes))
        return {"probe": {"kernel": kernel, "bias": jnp.zeros(classes)}}
