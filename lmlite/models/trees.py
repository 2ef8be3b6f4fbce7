"""Texts as trees of tokens: what several texts begin with stands there, and is computed, once.

A tree's tokens stand in the order of a walk from the root, so the tokens that go on from one are
those right after it, and a token sees its ancestors alone.

n tokens of a tree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmlite.models.tokens import subtree

TREE_TOKENS = 1024  # of a tree at most; attention is over all of them
LEAST = 16  # tokens that must be shared to join a tree, whatever the length of a text
_SHARE = 0.25  # and this part of it
_MOST = 2**15 - 1  # tokens of a tree that `subtree` can number


class Tree(NamedTuple):
    """ids, position, branch: int32[n], as in `Tokens`; positions are from 0. places: of each text's
    tokens among the n, int32[its length].
    """

    ids: np.ndarray
    position: np.ndarray
    branch: np.ndarray
    places: list[np.ndarray]


def tree(texts: Sequence[Sequence[int]]) -> Tree:
    """All texts, which may be equal or one another's beginning, as one tree."""
    ids: list[int] = []
    position: list[int] = []
    parent: list[int] = []
    places: list[np.ndarray] = [np.zeros(0, np.int32)] * len(texts)
    own = places[0]  # of the text before
    for i, same in walk(texts):
        new = np.arange(len(ids), len(ids) + len(texts[i]) - same, dtype=np.int32)
        before = own[same - 1] if same else -1
        parent += [int(before), *new[:-1].tolist()][: len(new)]
        ids += texts[i][same:]
        position += range(same, len(texts[i]))
        places[i] = own = np.concatenate([own[:same], new])
    arrays = (np.asarray(a, np.int32) for a in (ids, position, _branches(parent)))
    return Tree(*arrays, places)


def groups(
    texts: Sequence[Sequence[int]], most: int, beside: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices of texts to compute together, each in one group: neighbours in their sorted order.

    A text joins where what it shares with the one before pays for attention over a longer row, and
    while the group has at most `most` tokens, which bounds the memory. beside: tokens that each
    text brings besides its own.
    """
    found: list[list[int]] = []
    tokens, most = 0, min(most, _MOST)
    for i, same in walk(texts):
        size = len(texts[i]) + (beside[i] if beside else 0)
        pays = same >= max(LEAST, _SHARE * len(texts[i]))
        joins = found and pays and tokens + size - same <= most
        if joins:
            found[-1].append(i)
        else:
            found.append([i])
        tokens = tokens + size - same if joins else size
    return found


def walk(texts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The texts' indices in their sorted order, and how many tokens each shares with the one before
    it; the first with none.
    """
    order = sorted(range(len(texts)), key=lambda i: texts[i])
    before = [()] + [texts[i] for i in order]
    return [(i, common(a, texts[i])) for i, a in zip(order, before, strict=False)]


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of what two sequences begin with alike."""
    limit = min(len(a), len(b))
    return next((n for n in range(limit) if a[n] != b[n]), limit)


def _branches(parent: Sequence[int]) -> np.ndarray:
    """What all tokens go on from is the trunk; every other token a branch of its own, numbered
    from 1 in their order.
    """
    below = np.zeros(len(parent), np.int32)
    for i in range(len(parent) - 1, -1, -1):
        if parent[i] >= 0:
            below[parent[i]] += 1 + below[i]
    after = np.arange(len(parent) - 1, -1, -1, dtype=np.int32)  # tokens after each
    trunk = int(np.cumprod(below == after).sum())
    below[:trunk] = 0
    number = np.arange(1 - trunk, 1 - trunk + len(parent), dtype=np.int32)
    return subtree(np.maximum(number, 0), below)
