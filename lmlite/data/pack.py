"""Packs examples into rows, so that the model's matrix products see almost no padding.

R rows, T tokens a row, S source tokens a row, U read positions, M targets a read position,
C choices.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lmlite.data.item import Item
from lmlite.data.rows import first_fit

_SHORTEST_TARGETS = 16  # row length of an encoder-decoder's targets, doubled until they fit


class Batch(NamedTuple):
    """Arrays of one packed batch.

    ids, position, segment, branch: int32[R, T]; segment 0 is padding. origin: int32[R, T], where
    each token stands in the concatenation of all items given to `pack`. reads: int32[U], flat
    places in R * T. targets: int32[U, M]; weights: float32[U, M], 0 where there is no target.
    owner: int32[U], the item of each read; choice: int32[U, M]. source: int32[3, R, S], the ids,
    position and segment of what an encoder reads; S is 0 where there is none.
    """

    ids: np.ndarray
    position: np.ndarray
    segment: np.ndarray
    branch: np.ndarray
    origin: np.ndarray
    reads: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    owner: np.ndarray
    choice: np.ndarray
    source: np.ndarray


def pack(
    items: Sequence[Item],
    length: int,
    rows: int,
    order: Sequence[int] | None = None,
    reads: int = 8,
) -> Iterator[Batch]:
    """Batches that hold every item once; `rows` rows of `length` tokens, the last batch filled up.

    order: the items to take, all by default (`owner` and `origin` speak of `items`).
    reads: U is padded to a multiple of it. Similar sets so share a compiled program.
    """
    taken = list(range(len(items)) if order is None else order)
    starts = np.cumsum([0] + [len(item.ids) for item in items])
    placed = [
        [taken[i] for i in row] for row in first_fit([items[i].extent for i in taken], length)
    ]
    groups = [placed[i : i + rows] for i in range(0, len(placed), rows)]
    most = max(sum(len(items[i].reads) for row in g for i in row) for g in groups)
    reads = -(-most // reads) * reads
    width = max(len(t) for item in items for t in item.targets)
    lengths = length, 0
    if any(len(items[i].source) for i in taken):  # then what is decoded is short beside it
        longest = max(sum(len(items[i].ids) for i in row) for row in placed)
        lengths = max(_SHORTEST_TARGETS, 1 << (longest - 1).bit_length()), length
    for group in groups:
        yield _batch(items, starts, group, rows, lengths, reads, width)


def _batch(items, starts, group, rows, lengths, reads, width) -> Batch:
    length, sources = lengths
    grid = np.zeros((5, rows, length), np.int32)
    source = np.zeros((3, rows, sources), np.int32)
    line = np.zeros((2, reads), np.int32)
    table = np.zeros((2, reads, width), np.int32)
    weights = np.zeros((reads, width), np.float32)
    u = 0
    for r, row in enumerate(group):
        at = read = 0
        for segment, i in enumerate(row, start=1):
            item, n = items[i], len(items[i].ids)
            origin = np.arange(starts[i], starts[i] + n)
            segments = np.full(n, segment)
            grid[:, r, at : at + n] = item.ids, item.position, segments, item.branch, origin
            for place, targets in zip(item.reads, item.targets, strict=True):
                line[:, u] = r * length + at + place, i
                for m, (choice, token) in enumerate(targets):
                    table[:, u, m] = token, choice
                    weights[u, m] = item.shares[choice] if item.shares else 1.0
                u += 1
            at += n
            n = len(item.source)
            source[:, r, read : read + n] = item.source, np.arange(n), np.full(n, segment)
            read += n
    return Batch(*grid, line[0], table[0], weights, line[1], table[1], source)
