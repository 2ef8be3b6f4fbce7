"""Scoring planned as a tree of token prefixes: what several texts begin with is computed once.

A tree is one item of a packed batch. Its tokens stand in the order of a walk from the root, so the
tokens that go on from one are those right after it, and a token sees its ancestors alone.
"""

from collections.abc import Sequence

import numpy as np

from lmlite.data.item import Item
from lmlite.icl.encode import Encoded
from lmlite.models.tokens import subtree

TREE_TOKENS = 1024  # of a tree at most; attention is over all of them
_LEAST, _SHARE = 16, 0.25  # tokens, and part of a text, that must be shared to join a tree


def groups(encoded: Sequence[Encoded], most: int = TREE_TOKENS) -> list[list[int]]:
    """Indices of texts to compute together, each in one group: neighbours in their sorted order.

    A text joins where what it shares with the one before pays for attention over a longer row, and
    while the group has at most `most` tokens, which bounds the memory.
    """
    found: list[list[int]] = []
    tokens, before = 0, []
    for i in sorted(range(len(encoded)), key=lambda i: encoded[i].context):
        context = encoded[i].context
        size = len(context) + sum(len(choice) - 1 for choice in encoded[i].choices)
        same = common(before, context)
        pays = same >= max(_LEAST, _SHARE * len(context))
        joins = found and pays and tokens + size - same <= most
        if joins:
            found[-1].append(i)
        else:
            found.append([i])
        tokens = tokens + size - same if joins else size
        before = context
    return found


def tree_item(encoded: Sequence[Encoded], offset: int = 0) -> Item:
    """One item for all choices of all texts, which are numbered through in their order.

    offset: tokens before them that they all share.
    """
    paths = sorted(
        (e.context + choice[:-1], i, c)
        for i, e in enumerate(encoded)
        for c, choice in enumerate(e.choices)
    )
    first = np.cumsum([0] + [len(e.choices) for e in encoded])
    ids: list[int] = []
    position: list[int] = []
    parent: list[int] = []
    targets: dict[int, list[tuple[int, int]]] = {}
    before: list[int] = []
    places: list[int] = []  # of the tokens of `before` among ids
    for path, i, c in paths:
        same = common(before, path)
        new = list(range(len(ids), len(ids) + len(path) - same))
        parent += [*places[same - 1 : same], *new][: len(new)] if same else [-1, *new[:-1]]
        ids += path[same:]
        position += range(offset + same, offset + len(path))
        before, places = path, places[:same] + new
        last = len(encoded[i].context) - 1
        for j, token in enumerate(encoded[i].choices[c]):
            targets.setdefault(places[last + j], []).append((int(first[i]) + c, token))
    reads = tuple(sorted(targets))
    arrays = (np.asarray(a, np.int32) for a in (ids, position, _branches(parent)))
    return Item(*arrays, reads, tuple(tuple(targets[r]) for r in reads))


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
