"""VeRA: vectors scale one random low-rank pair (Kopiczko et al. 2023, arXiv:2310.11454).

I inputs, O outputs, R rank.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.adapt.method import Method, fold, owners
from lmlite.errors import UserError
from lmlite.models.layers import matmul
from lmlite.ranges import BELOW_ONE, number
from lmlite.runtime import fold_name

_random = nn.initializers.he_uniform()


@dataclasses.dataclass(frozen=True)
class VeRA(Method):
    """y = W x + b * (B (d * (A dropout(x)))), d [R] from d_initial, b [O] from zero: the base.

    A [I, R] and B [R, O] are frozen, stored once under `vera` at the largest I and O of the
    targets; a layer uses their first rows and columns.
    """

    targets: str = r"layers_\d+/attn/(q|v)"
    rank: int = 256
    d_initial: float = 0.1
    dropout: float = 0.0

    def __post_init__(self):
        number("dropout", self.dropout, 0, BELOW_ONE)
        if self.rank < 1:
            raise UserError(f"rank={self.rank} is below 1")

    def rules(self, lm):
        return ((".*/vera_[db]", "adapter"), (".*", tree.FROZEN))

    def hooks(self):
        return (Hook(self.targets, self._wrap),)

    def init(self, lm, key, classes):
        own = super().init(lm, key, classes)
        base = tree.flatten(lm.params)
        shapes = [base[f"{path}/kernel"].shape for path in owners(own, "vera_d")]
        inputs, outputs = (max(sizes) for sizes in zip(*shapes, strict=True))
        a = _random(fold_name(key, "vera/a"), (inputs, self.rank))
        b = _random(fold_name(key, "vera/b"), (self.rank, outputs))
        return tree.merge(own, {"vera": {"a": a, "b": b}})

    def form(self):
        """Alone with dropout: what falls depends on how examples are packed."""
        return None if self.dropout else self

    def _wrap(self, site, inner, x):
        y = inner(x)
        d = site.param("vera_d", nn.initializers.constant(self.d_initial), (self.rank,))
        b = site.param("vera_b", nn.initializers.zeros, (y.shape[-1],))
        first, second = site.shared("vera", "a"), site.shared("vera", "b")
        if first is None:  # traced for the shapes of d and b, which decide the pair's
            return y
        low = matmul(site.dropout(x, self.dropout), first[: x.shape[-1]], site.dtype) * d
        return y + matmul(low, second[:, : y.shape[-1]], site.dtype) * b

    def merge(self, params):
        pair = params["vera"]

        def into(path, leaves, d, b):
            inputs, outputs = leaves["kernel"].shape
            low = pair["a"][:inputs] * d, pair["b"][:, :outputs] * b
            return {"kernel": leaves["kernel"] + jnp.matmul(*low, precision="highest")}

        return fold({k: v for k, v in params.items() if k != "vera"}, ("vera_d", "vera_b"), into)
