"""The order of training examples and the shapes of their batches, both fixed by the seed."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lmlite.data.pack import Batch, Item, first_fit, pack, row_length

_MULTIPLE = 16  # of the row length: one compilation an arm, so it may fit closely
_MOST_SHAPES = 4
_PLANNED = 256  # batches of the first epoch that shapes are chosen by


class Epochs:
    """Shuffled batches of `batch_size` of the items, packed; the last of an epoch may be smaller.

    Equal arguments give equal batches, whatever was drawn before: a resumed run sees what it would
    have seen. The row length is the one that wastes least; a batch takes as many rows as it needs,
    rounded up to one of a few numbers, since each shape costs a compilation and saves padding.
    """

    def __init__(
        self, items: Sequence[Item], batch_size: int, epochs: int, seed: int, context: int
    ):
        self._items, self._size, self._seed = items, batch_size, seed
        self._lengths = [len(item.ids) for item in items]
        self.steps = math.ceil(len(items) / batch_size)
        planned = [c for e in range(epochs) for c in self._order(e)][:_PLANNED]
        shapes = 1 + epochs * self.steps // 64
        least = row_length(items, context, _MULTIPLE)
        plans = [
            self._plan(planned, length, min(shapes, _MOST_SHAPES))
            for length in range(least, 2 * least + 1, _MULTIPLE)
        ]
        _, self._length, self._rows = min(plans)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        for chosen in self._order(epoch):
            need = self._need(chosen, self._length)
            rows = next((rows for rows in self._rows if rows >= need), need)
            yield from pack(self._items, self._length, rows, order=chosen)

    def _order(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._items))
        return [order[i : i + self._size] for i in range(0, len(order), self._size)]

    def _need(self, chosen, length: int) -> int:
        return len(first_fit([self._lengths[i] for i in chosen], length))

    def _plan(self, planned, length: int, shapes: int) -> tuple[int, int, list[int]]:
        """(tokens in all, length, numbers of rows to compile for)."""
        needs = sorted(self._need(chosen, length) for chosen in planned)
        rows = sorted({needs[(i + 1) * len(needs) // shapes - 1] for i in range(shapes)})
        tokens = sum(length * next(r for r in rows if r >= need) for need in needs)
        return tokens, length, rows
