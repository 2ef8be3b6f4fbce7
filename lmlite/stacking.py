"""Trees of several arms as one: each leaf [A, ...], filled up with zeros to the largest shape.

A arms.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lmlite import tree


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees of one structure, whose leaves may differ in size: numpy leaves [A, *largest]."""
    return jax.tree.map(lambda *leaves: _side_by_side(leaves), *trees)


def unstack(stacked: Any, like: Sequence[Any]) -> list[Any]:
    """The inverse of `stack`: numpy views in the shapes of `like`, which is what was stacked."""
    held = jax.tree.map(np.asarray, stacked)

    def part(arm, leaf, shape):
        return leaf[(arm, *(slice(size) for size in np.shape(shape)))]

    return [
        jax.tree.map(lambda leaf, one, arm=arm: part(arm, leaf, one), held, one)
        for arm, one in enumerate(like)
    ]


def shared(trees: Sequence[Mapping]) -> tuple[dict, list[dict]]:
    """(leaves that are equal in all trees, what each has of its own), without copying any.

    Leaves are compared by identity first: arms on one base hold the same arrays.
    """
    flat = [tree.flatten(one) for one in trees]
    same = {path: leaf for path, leaf in flat[0].items() if _equal([f[path] for f in flat])}
    own = [{path: leaf for path, leaf in f.items() if path not in same} for f in flat]
    return tree.unflatten(same), [tree.unflatten(one) for one in own]


def _equal(leaves: Sequence[Any]) -> bool:
    first = leaves[0]
    return all(
        leaf is first or (np.shape(leaf) == np.shape(first) and np.array_equal(leaf, first))
        for leaf in leaves[1:]
    )


def _side_by_side(leaves: Sequence[Any]) -> np.ndarray:
    arrays = [np.asarray(leaf) for leaf in leaves]
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    out = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for arm, array in enumerate(arrays):
        out[(arm, *(slice(size) for size in array.shape))] = array
    return out
