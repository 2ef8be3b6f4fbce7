"""L2-SP: fine-tuning pulled toward its starting point (Li et al. 2018, arXiv:1802.01483)."""

import dataclasses

import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.errors import UserError


@dataclasses.dataclass(frozen=True)
class L2SP(Method):
    """Every parameter w trains under loss + strength / 2 * |w - w0|^2, w0 the pretrained value.

    The pretrained values are frozen leaves under `start`.
    """

    strength: float = 0.01

    def __post_init__(self):
        if self.strength < 0.0:
            raise UserError(f"strength={self.strength} is negative")

    def rules(self, lm):
        return (("start/.*", tree.FROZEN), (".*", "full"))

    def init(self, lm, key, classes):
        return {"start": lm.params}

    def penalty(self, params):
        now, start = tree.flatten(params), tree.flatten(params["start"])
        squares = (jnp.sum(jnp.square(now[path] - leaf)) for path, leaf in start.items())
        return 0.5 * self.strength * sum(squares)

    def merge(self, params):
        return {name: leaf for name, leaf in params.items() if name != "start"}
