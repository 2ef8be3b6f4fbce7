"""Scores of arms fitted together: the first arm that asks has them computed for all."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from lmlite.data.pack import Item
from lmlite.runtime import Meter


class CommonScores:
    """The scores of the items asked for last, arm by arm, and what they cost.

    compute: (items, meter) -> [C] an item, arm by arm. An arm that asks for the same items again
    has them computed again.
    """

    def __init__(self, compute: Callable[[Sequence[Item], Meter], list[list[np.ndarray]]]):
        self._compute = compute
        self._asked: list[tuple] | None = None
        self._left: dict[int, list[np.ndarray]] = {}
        self._arms, self._work, self._wall = 0, Meter(), 0.0

    def of(self, arm: int, items: Sequence[Item], meter: Meter) -> list[np.ndarray]:
        """[C] an item, for one arm; `meter` has an equal share of what they cost added to it."""
        asked = [_told(item) for item in items]
        new = asked != self._asked or arm not in self._left
        if new:
            began, self._work = time.perf_counter(), Meter()
            found = self._compute(items, self._work)
            self._wall = time.perf_counter() - began
            self._asked, self._arms = asked, len(found)
            self._left = dict(enumerate(found))
        meter.share(self._work, self._wall, self._arms, here=new)
        return self._left.pop(arm)


def _told(item: Item) -> tuple:
    """An item as something that compares."""
    return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in item)
