"""Packs examples into rows, so that the model's matrix products see almost no padding.

R rows, T tokens a row, S source tokens a row, U read positions, M targets a read position,
C choices.

An item is a query (the trunk) with one branch an answer choice: a branch sees the query and itself
only, so all choices of all examples of a batch share one pass. Logits are read only where a target
hangs. A single-token choice adds no input token at all.

Of an encoder-decoder the query is the source, which its encoder reads in a row of its own, and the
trunk the one token that its decoder starts from.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lmlite.errors import UserError

_NO_SOURCE = np.zeros(0, np.int32)
_SHORTEST_TARGETS = 16  # row length of an encoder-decoder's targets, doubled until they fit
BATCH_TOKENS = 1024  # where weights do not change: enough for full-speed products, little padding


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


def row_length(items: Sequence[Item], context: int, multiple: int = 32) -> int:
    """T for these items: the longest, rounded up. Raises UserError for one past `context`."""
    longest = max((item.extent for item in items), default=0)
    ends = (max(int(item.position.max(initial=0)) + 1, len(item.source)) for item in items)
    last = max(ends, default=0)
    if last > context:
        raise UserError(
            f"a prompt of {last} tokens is longer than the model's context of {context}; "
            "use fewer demonstrations or shorter inputs"
        )
    return max(1, -(-longest // multiple)) * multiple


def most_reads(items: Sequence[Item], size: int, multiple: int = 8) -> int:
    """U with which any `size` of the items can be packed, a multiple of `multiple`."""
    most = sum(sorted(len(item.reads) for item in items)[-size:])
    return -(-most // multiple) * multiple


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices whose lengths sum to at most `capacity`: longest first, first that fits."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, space in enumerate(room) if space >= lengths[i]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(capacity)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


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
