"""LoRA: a low-rank update beside frozen linear layers (Hu et al. 2021, arXiv:2106.09685).

I inputs, O outputs, R rank.
"""

import dataclasses
import math
import re
from numbers import Real

import flax.linen as nn
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.hooks import Hook, check_regex
from lmlite.adapt.method import Method, fold, owners
from lmlite.errors import UserError
from lmlite.models.layers import matmul, uniform_fan_in
from lmlite.ranges import BELOW_ONE, number

_LEAST = math.nextafter(0, 1)  # an alpha of 0 would train nothing


@dataclasses.dataclass(frozen=True)
class LoRA(Method):
    """y = W x + s B A dropout(x), A [I, R] uniform, B [R, O] zero: equal to the base at step 0.

    targets: regex over paths of linear layers, full match. rank_stabilised: s = alpha / sqrt(R)
    (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732) in place of alpha / R. ranks, alphas: (regex,
    value) pairs for single layers, the first full match decides. The labels lora_a and lora_b can
    be given learning rates of their own (LoRA+, Hayou et al. 2024, arXiv:2402.12354).
    """

    targets: str = r"(encoder/)?layers_\d+/(attn|cross)/(q|v)"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        number("dropout", self.dropout, 0, BELOW_ONE)
        number("alpha", self.alpha, _LEAST)
        for name in ("ranks", "alphas"):
            for pair in getattr(self, name):
                if not isinstance(pair, tuple | list) or len(pair) != 2:
                    raise UserError(f"{name}: {pair!r} is not (regex, number)")
                if not isinstance(pair[1], Real):
                    raise UserError(f"{name}: {pair[1]!r} of {pair[0]!r} is no number")
                check_regex(name, pair[0])
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))
        for pattern, alpha in self.alphas:
            number(f"alphas: {pattern}", alpha, _LEAST)
        for rank in (self.rank, *dict(self.ranks).values()):
            if rank < 1:
                raise UserError(f"rank={rank} is below 1; to leave a layer out, change targets")

    def rules(self, lm):
        return ((".*/lora_a", "lora_a"), (".*/lora_b", "lora_b"), (".*", tree.FROZEN))

    def hooks(self):
        return (Hook(self.targets, self._wrap),)

    def init(self, lm, key, classes):
        params = super().init(lm, key, classes)
        paths = owners(params, "lora_a")
        for pattern, value in self.ranks + self.alphas:
            if not any(re.fullmatch(pattern, path) for path in paths):
                raise UserError(f"({pattern!r}, {value}) of ranks or alphas matches no target")
        return params

    def size(self, path: str) -> tuple[int, float]:
        """(R, s) of the layer at `path`."""
        rank = _first(self.ranks, path, self.rank)
        alpha = _first(self.alphas, path, self.alpha)
        return rank, alpha / (rank**0.5 if self.rank_stabilised else rank)

    def low_rank(self, site, x, features: int):
        """s B A dropout(x): [..., I] -> float32[..., O]."""
        rank, scale = self.size(site.path)
        a = site.param("lora_a", uniform_fan_in, (x.shape[-1], rank))
        b = site.param("lora_b", nn.initializers.zeros, (rank, features))
        return matmul(matmul(site.dropout(x, self.dropout), a, site.dtype), b, site.dtype) * scale

    def form(self):
        """LoRA on the same layers; with dropout, what falls depends on how examples are packed."""
        same = dict(rank=1, alpha=1.0, rank_stabilised=False, ranks=(), alphas=())
        return None if self.dropout else dataclasses.replace(self, **same)

    def stacked(self, methods, paths):
        """Each layer at its largest rank and the scale 1; s is a factor of B."""
        layers = [path.removesuffix("/lora_b") for path in paths if path.endswith("/lora_b")]
        widest = {layer: max(m.size(layer)[0] for m in methods) for layer in layers}
        ranks = tuple((re.escape(layer), rank) for layer, rank in widest.items())
        alphas = tuple((layer, float(rank)) for layer, rank in ranks)
        method = dataclasses.replace(
            self, rank=1, alpha=1.0, rank_stabilised=False, ranks=ranks, alphas=alphas
        )
        return method, [{f"{layer}/lora_b": m.size(layer)[1] for layer in layers} for m in methods]

    def delta(self, path: str, a, b):
        """s A B [I, O], what the layer's kernel changes by."""
        return jnp.matmul(a, b, precision="highest") * self.size(path)[1]

    def _wrap(self, site, inner, x):
        y = inner(x)
        return y + self.low_rank(site, x, y.shape[-1])

    def merge(self, params):
        def into(path, leaves, a, b):
            return {"kernel": leaves["kernel"] + self.delta(path, a, b)}

        return fold(params, ("lora_a", "lora_b"), into)


def _first(pairs, path, default):
    return next((value for pattern, value in pairs if re.fullmatch(pattern, path)), default)
