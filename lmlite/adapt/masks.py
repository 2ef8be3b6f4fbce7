"""Sparse masks: a chosen few weights of frozen linear layers train, all others stay.

I inputs, O outputs, k weights chosen in a layer.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.adapt.method import Method, fold, owners
from lmlite.errors import UserError
from lmlite.runtime import fold_name

CHOICES = ("magnitude", "random")


@dataclasses.dataclass(frozen=True)
class SparseMask(Method):
    """W + scatter(values at index), values [k] starting at zero and index [k] frozen: the base.

    The optimizer and the checkpoint see k values a layer, not a masked kernel. fraction: of the
    weights of all target layers together, those with the highest score; choose: 'magnitude' (|w|)
    or 'random', the fraction of each layer. Indices are int32 into the flattened kernel [I * O].
    """

    outermost = False
    targets: str = r"(encoder/)?layers_\d+/((attn|cross)/[qkvo]|mlp/(up|gate|down))"
    fraction: float = 0.005
    choose: str = "magnitude"

    def __post_init__(self):
        if not 0.0 < self.fraction <= 1.0:
            raise UserError(f"fraction={self.fraction} is not in (0, 1]")
        if self.choose not in CHOICES:
            raise UserError(f"choose={self.choose!r} is unknown; known: {CHOICES}")

    def rules(self, lm):
        return ((".*/mask_values", "mask"), (".*", tree.FROZEN))

    def hooks(self):
        return (Hook(self.targets, self._wrap),)

    def init(self, lm, key, classes):
        kernels = self._kernels(lm, key)
        if self.choose == "magnitude":
            return self.keep({path: jnp.abs(kernel) for path, kernel in kernels.items()})
        # As many in each layer as its share: seeds then share a compiled step.
        draw = {p: jax.random.uniform(fold_name(key, p), k.shape) for p, k in kernels.items()}
        return tree.merge(*(self.keep({path: score}) for path, score in draw.items()))

    def keep(self, scores: Mapping[str, jax.Array]) -> dict:
        """The leaves that train the best-scored fraction: {module path: score [I, O]} -> tree."""
        flat = {path: np.asarray(score, np.float32).ravel() for path, score in scores.items()}
        joint = np.concatenate(list(flat.values()))
        chosen = np.zeros(joint.size, bool)
        kept = max(1, round(self.fraction * joint.size))
        chosen[np.argpartition(joint, joint.size - kept)[-kept:]] = True
        leaves, at = {}, 0
        for path, score in flat.items():
            if (index := np.flatnonzero(chosen[at : at + score.size])).size:
                leaves[f"{path}/mask_index"] = jnp.asarray(index, jnp.int32)
                leaves[f"{path}/mask_values"] = jnp.zeros(index.size)
            at += score.size
        return tree.unflatten(leaves)

    def _kernels(self, lm, key) -> dict[str, jax.Array]:
        base = tree.flatten(lm.params)
        paths = owners(super().init(lm, key, 0), "mask_values")
        return {path: base[f"{path}/kernel"] for path in paths}

    def _wrap(self, site, inner, x):
        if site.seen is not None:  # traced for the names of the layers; `keep` decides the sizes
            site.param("mask_values", nn.initializers.zeros, (0,))
        values = site.own("mask_values")
        if site.seen is not None or values is None:
            return inner(x)
        return site.linear(x, _add(site.weight("kernel"), site.own("mask_index"), values))

    def kept(self, lm, params, moved):
        """The values and where they stand."""
        flat = tree.flatten(params)
        places = {path: leaf for path, leaf in flat.items() if path.endswith("/mask_index")}
        return tree.merge(moved, tree.unflatten(places))

    def merge(self, params):
        def into(path, leaves, index, values):
            return {"kernel": _add(leaves["kernel"], index, values)}

        return fold(params, ("mask_index", "mask_values"), into)


def _add(kernel, index, values):
    whole = kernel.astype(jnp.float32).ravel()
    return whole.at[index].add(values, unique_indices=True).reshape(kernel.shape)


@dataclasses.dataclass(frozen=True)
class FishMask(SparseMask):
    """The weights with the largest Fisher information train (Sung et al. 2021, arXiv:2111.09839).

    The diagonal is the empirical one: the mean over training examples of the squared gradient of
    the true answer's log-probability. `init` chooses at random, the examples then choose anew.
    """

    choose: str = "random"

    def form(self):
        """Alone: how many a layer has depends on the examples and, of an encoder, on the seed."""
        return None

    def inform(self, lm, added, squares):
        if squares is None:
            raise UserError("method 'fish_mask' chooses by training examples, and there are none")
        kernels = [f"{path}/kernel" for path in self._kernels(lm, jax.random.key(0))]
        chosen = self.keep({p.removesuffix("/kernel"): s for p, s in squares(kernels).items()})
        others = {p: x for p, x in tree.flatten(added).items() if "/mask_" not in p}
        return tree.merge(tree.unflatten(others), chosen)
