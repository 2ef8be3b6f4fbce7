"""The order of training examples and the shapes of their batches, both fixed by the seed.

A arms, R rows, T tokens a row, U read positions, M targets a read.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lmlite.data.item import Item
from lmlite.data.pack import Batch, pack
from lmlite.data.rows import first_fit, most_reads, row_length

_MULTIPLE = 16  # of the row length: one compilation an arm, so it may fit closely
_MOST_SHAPES = 4
_UNUSED = 2**32  # above every seed of a run
_PLANNED = 256  # batches that shapes are chosen by, drawn for that alone: all seeds have the same


class Epochs:
    """Shuffled batches of `batch_size` of the items, packed; the last of an epoch may be smaller.

    Equal arguments give equal batches, whatever was drawn before: a resumed run sees what it would
    have seen. The row length is the one that wastes least; a batch takes as many rows as it needs,
    rounded up to one of a few numbers, since each shape costs a compilation and saves padding.
    The shapes are those of every seed, so that seeds share what is compiled.
    """

    def __init__(
        self, items: Sequence[Item], batch_size: int, epochs: int, seed: int, context: int
    ):
        self._plan(items, batch_size, epochs, (seed,), context)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        return (batch for (batch,) in self._packed(epoch))

    def _plan(self, items, batch_size, epochs, seeds, context) -> None:
        self._items, self._size, self._seeds = items, batch_size, seeds
        self._lengths = [item.extent for item in items]
        self.steps = math.ceil(len(items) / batch_size)
        draws = [_UNUSED + i for i in range(len(seeds))]
        most = math.ceil(_PLANNED / self.steps)
        planned = [c for e in range(most) for c in self._chosen(e, draws)][:_PLANNED]
        self._reads = self._most_reads(planned)
        shapes = min(1 + epochs * self.steps // 64, _MOST_SHAPES)
        least = row_length(items, context, _MULTIPLE)
        lengths = range(least, 2 * least + 1, _MULTIPLE)
        plans = [self._shape(planned, n, shapes) for n in lengths]
        _, self._length, self._rows = min(plans)

    def _packed(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of one epoch, a seed, in equal numbers of rows."""
        for chosen in self._chosen(epoch, self._seeds):
            need = self._need(chosen, self._length)
            rows = next((rows for rows in self._rows if rows >= need), need)
            shape = self._length, rows
            yield [next(pack(self._items, *shape, order=c, reads=self._reads)) for c in chosen]

    def _chosen(self, epoch: int, seeds: Sequence[int]) -> Iterator[list[np.ndarray]]:
        """Batch by batch, the items that each seed takes."""
        n = len(self._items)
        orders = [np.random.default_rng([seed, epoch]).permutation(n) for seed in seeds]
        return ([o[i : i + self._size] for o in orders] for i in range(0, n, self._size))

    def _most_reads(self, planned) -> int:
        """U for all batches: enough for any of the planned ones and, where answers differ in
        length, some more, so that hardly a batch needs a shape of its own.
        """
        sizes = [len(item.reads) for item in self._items]
        seen = max(sum(sizes[i] for i in c) for chosen in planned for c in chosen)
        return min(most_reads(self._items, self._size), -(-5 * seen // 32) * 8)

    def _need(self, chosen, length: int) -> int:
        """The rows that the seed with the most needs."""
        return max(len(first_fit([self._lengths[i] for i in c], length)) for c in chosen)

    def _shape(self, planned, length: int, shapes: int) -> tuple[int, int, list[int]]:
        """(tokens in all, length, numbers of rows to compile for)."""
        needs = sorted(self._need(chosen, length) for chosen in planned)
        rows = sorted({needs[(i + 1) * len(needs) // shapes - 1] for i in range(shapes)})
        tokens = sum(length * next(r for r in rows if r >= need) for need in needs)
        return tokens, length, rows


class JointEpochs(Epochs):
    """The epochs of several seeds over the same items, batch beside batch in equal shapes.

    Each seed has the batches that `Epochs` gives it alone, up to how they are packed and padded.
    """

    def __init__(
        self, items: Sequence[Item], batch_size: int, epochs: int, seeds: Sequence[int], context
    ):
        self._plan(items, batch_size, epochs, tuple(seeds), context)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch with every array stacked: ids int32[A, R, T] and so on."""
        return (_stacked(batches) for batches in self._packed(epoch))


def _stacked(batches: Sequence[Batch]) -> Batch:
    """Fields side by side; shorter tables of reads are filled up with reads that weigh nothing."""

    def stack(*arrays):
        shape = np.max([a.shape for a in arrays], axis=0)
        out = np.zeros((len(arrays), *shape), arrays[0].dtype)
        for at, array in zip(out, arrays, strict=True):
            at[tuple(slice(n) for n in array.shape)] = array
        return out

    return Batch(*map(stack, *batches))
