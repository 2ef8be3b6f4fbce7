"""Scores of arms fitted together: the first arm that asks has them computed for all."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lmlite.data.item import Item
from lmlite.runtime import Meter


class _Found(NamedTuple):
    """left: the scores of each arm that has not asked yet; of `arms` in all, for what they cost."""

    left: dict[int, list[np.ndarray]]
    arms: int
    work: Meter
    wall: float


class CommonScores:
    """The scores of items, arm by arm, and what they cost.

    compute: (items, meter) -> [..., C] an item, arm by arm. What is found is handed out once: an
    arm that asks for the same items again has them computed again.
    """

    def __init__(self, compute: Callable[[Sequence[Item], Meter], list[list[np.ndarray]]]):
        self._compute = compute
        self._found: dict[tuple, _Found] = {}

    def of(self, arm: int, items: Sequence[Item], meter: Meter) -> list[np.ndarray]:
        """[..., C] an item, for one arm; an equal share of what they cost is added to `meter`."""
        asked = tuple(_told(item) for item in items)
        new = asked not in self._found or arm not in self._found[asked].left
        if new:
            began, work = time.perf_counter(), Meter()
            found = self._compute(items, work)
            wall = time.perf_counter() - began
            self._found[asked] = _Found(dict(enumerate(found)), len(found), work, wall)
        left, arms, work, wall = self._found[asked]
        meter.share(work, wall, arms, here=new)
        scores = left.pop(arm)
        if not left:
            del self._found[asked]
        return scores


def _told(item: Item) -> tuple:
    """An item as something that compares."""
    return tuple(x.tobytes() if isinstance(x, np.ndarray) else x for x in item)
