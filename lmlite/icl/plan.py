"""Scoring planned as a tree of token prefixes: what several texts begin with is computed once."""

from collections.abc import Sequence

import numpy as np

from lmlite.data.item import Item
from lmlite.icl.encode import Encoded
from lmlite.models import trees


def groups(encoded: Sequence[Encoded], most: int = trees.TREE_TOKENS) -> list[list[int]]:
    """Indices of texts to compute together: see `trees.groups`."""
    beside = [sum(len(choice) - 1 for choice in e.choices) for e in encoded]
    return trees.groups([e.context for e in encoded], most, beside)


def tree_item(encoded: Sequence[Encoded], offset: int = 0) -> Item:
    """One item for all choices of all texts, which are numbered through in their order.

    offset: tokens before them that they all share.
    """
    own = [(len(e.context) - 1, choice) for e in encoded for choice in e.choices]
    tree = trees.tree([e.context + choice[:-1] for e in encoded for choice in e.choices])
    targets: dict[int, list[tuple[int, int]]] = {}
    for number, ((last, choice), places) in enumerate(zip(own, tree.places, strict=True)):
        for place, token in zip(places[last:].tolist(), choice, strict=True):
            targets.setdefault(place, []).append((number, token))
    reads = tuple(sorted(targets))
    return Item(
        tree.ids, tree.position + np.int32(offset), tree.branch,
        reads, tuple(tuple(targets[r]) for r in reads),
    )  # fmt: skip
