"""One example as tokens, ready to be packed.

An item is a query (the trunk) with one branch an answer choice: a branch sees the query and itself
only, so all choices of all examples of a batch share one pass. Logits are read only where a target
hangs. A single-token choice adds no input token at all.

Of an encoder-decoder the query is the source, which its encoder reads in a row of its own, and the
trunk what its decoder starts from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_NO_SOURCE = np.zeros(0, np.int32)


class Item(NamedTuple):
    """One example as tokens.

    ids, position, branch: int32[n]. reads: int[u], places in 0..n-1 whose state predicts something;
    targets[i]: the (choice, token) pairs predicted there. source: int32[s], what an encoder reads.
    shares: what each choice counts for in training; () for 1 each.
    """

    ids: np.ndarray
    position: np.ndarray
    branch: np.ndarray
    reads: tuple[int, ...]
    targets: tuple[tuple[tuple[int, int], ...], ...]
    source: np.ndarray = _NO_SOURCE
    shares: tuple[float, ...] = ()

    @property
    def extent(self) -> int:
        """The tokens of a row that it takes."""
        return max(len(self.ids), len(self.source))


def choice_item(query: Sequence[int], choices: Sequence[Sequence[int]], offset: int = 0) -> Item:
    """A query and its answer choices; `offset` is the number of prefix tokens before the query."""
    n = len(query)
    ids, position, branch = list(query), list(range(offset, offset + n)), [0] * n
    targets: dict[int, list[tuple[int, int]]] = {}
    for c, tokens in enumerate(choices):
        at = n - 1
        for j, token in enumerate(tokens):
            targets.setdefault(at, []).append((c, token))
            if j + 1 < len(tokens):
                at = len(ids)
                ids.append(token)
                position.append(offset + n + j)
                branch.append(c + 1)
    reads = tuple(targets)
    arrays = (np.asarray(a, np.int32) for a in (ids, position, branch))
    return Item(*arrays, reads, tuple(tuple(targets[r]) for r in reads))


def class_item(query: Sequence[int], classes: Sequence[int], reads: str = "last") -> Item:
    """A query whose 'last' or 'mean' state predicts class indices (for a classification head).

    The mean is read at the first place: see `lmlite.icl.score.pooled`.
    """
    n = len(query)
    targets = (tuple((c, c) for c in classes),)
    return Item(
        np.asarray(query, np.int32), np.arange(n, dtype=np.int32), np.zeros(n, np.int32),
        (0 if reads == "mean" else n - 1,), targets,
    )  # fmt: skip


def mask_item(ids: Sequence[int], place: int, tokens: Sequence[int]) -> Item:
    """A text of which one place is masked, and the token that each choice puts there."""
    n = len(ids)
    targets = (tuple(enumerate(tokens)),)
    arrays = (np.asarray(ids, np.int32), np.arange(n, dtype=np.int32), np.zeros(n, np.int32))
    return Item(*arrays, (place,), targets)
