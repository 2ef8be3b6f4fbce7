"""Diff pruning: a sparse change of the weights, found by relaxed L0 (Guo et al. 2021).

arXiv:2012.07463. I inputs, O outputs.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.adapt.masks import SparseMask
from lmlite.adapt.method import Following, Method, fold, owners
from lmlite.errors import UserError
from lmlite.models.layers import matmul

_LOW, _HIGH = -1.5, 1.5  # what the gates are stretched to before they are cut to 0 .. 1
_OPEN = 5.0  # log alpha at the start: gates of 1


@dataclasses.dataclass(frozen=True)
class DiffPruning(Method):
    """y = (W + z * d) x, d [I, O] from zero: equal to the base at step 0.

    z [I, O] are hard-concrete gates (Louizos et al. 2018, arXiv:1712.01312): drawn anew in every
    training step, at their middle otherwise. The loss grows by `strength` times the share of open
    gates that is expected (equation 4, as a mean). Then the largest `fraction` of all z d are kept
    and trained once more, the others dropped (section 3.3), at `kept_learning_rate`. The label gate
    can be given a learning rate of its own.
    """

    outermost = False
    targets: str = r"(encoder/)?layers_\d+/((attn|cross)/[qkvo]|mlp/(up|gate|down))"
    fraction: float = 0.005
    strength: float = 1.0
    kept_learning_rate: float = 1e-3

    def __post_init__(self):
        if not 0 < self.fraction <= 1:
            raise UserError(f"fraction={self.fraction} must be above 0, at most 1")
        if self.strength < 0:
            raise UserError(f"strength={self.strength} is negative")

    def rules(self, lm):
        return ((".*/diff", "diff"), (".*/diff_gate", "gate"), (".*", tree.FROZEN))

    def hooks(self):
        return (Hook(self.targets, self._wrap),)

    def form(self):
        """Trains alone only: gates are drawn."""
        return None

    def penalty(self, params):
        """strength times the mean probability that a gate is not 0."""
        flat = tree.flatten(params)
        gates = [leaf for path, leaf in flat.items() if path.endswith("/diff_gate")]
        open_ = sum(jnp.sum(likely_open(gate)) for gate in gates)
        return self.strength * open_ / sum(gate.size for gate in gates)

    def following(self, params):
        """The weights of the largest z d over all layers, from where they are."""
        flat = tree.flatten(params)
        deltas = {
            owner: middle(flat[f"{owner}/diff_gate"]) * flat[f"{owner}/diff"]
            for owner in owners(params, "diff")
        }
        mask = SparseMask(self.targets, self.fraction)
        leaves = tree.flatten(mask.keep({path: jnp.abs(d) for path, d in deltas.items()}))
        for path in [path for path in leaves if path.endswith("/mask_index")]:
            owner = path.removesuffix("/mask_index")
            leaves[f"{owner}/mask_values"] = deltas[owner].ravel()[leaves[path]]
        return Following(mask, tree.unflatten(leaves), self.kept_learning_rate)

    def merge(self, params):
        """W + z d, all of it: what is kept of it alone, `following` trains and folds."""

        def into(path, leaves, diff, gate):
            return {"kernel": leaves["kernel"] + middle(gate) * diff}

        return fold(params, ("diff", "diff_gate"), into)

    def _wrap(self, site, inner, x):
        y = inner(x)
        shape = x.shape[-1], y.shape[-1]
        diff = site.param("diff", nn.initializers.zeros, shape)
        gate = site.param("diff_gate", nn.initializers.constant(_OPEN), shape)
        key = site.module.make_rng("dropout") if site.module.has_rng("dropout") else None
        z = middle(gate) if key is None else drawn(gate, key)
        return y + matmul(x, z * diff, site.dtype)


def middle(gate: jax.Array) -> jax.Array:
    """The gate without chance: log alpha -> 0 .. 1."""
    return _stretched(jax.nn.sigmoid(gate))


def drawn(gate: jax.Array, key: jax.Array) -> jax.Array:
    """A hard-concrete sample a gate: log alpha -> 0 .. 1 (temperature 1, as in the paper)."""
    return _stretched(jax.nn.sigmoid(gate + jax.random.logistic(key, gate.shape)))


def likely_open(gate: jax.Array) -> jax.Array:
    """P(z > 0) by log alpha: equation 4."""
    return jax.nn.sigmoid(gate - jnp.log(-_LOW / _HIGH))


def _stretched(s: jax.Array) -> jax.Array:
    return jnp.clip(s * (_HIGH - _LOW) + _LOW, 0.0, 1.0)
