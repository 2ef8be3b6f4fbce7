"""One line of the benchmark: a quantity of ours, the peer's, and what was aimed at."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Measure(NamedTuple):
    """what: the quantity, less is better. unit: 's', 'MiB', 'nats', or '' of a count. None: not
    measured.

    at_least: the ratio peer / ours aimed at; at_most: the value of ours aimed at.
    """

    case: str
    what: str
    unit: str
    ours: float | None
    peer: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times less ours is than the peer's."""
        return None if self.ours is None or self.peer is None else self.peer / self.ours

    @property
    def reached(self) -> bool | None:
        """Whether the aim was reached; None without an aim or a measurement."""
        if self.at_least is not None:
            return None if self.ratio is None else self.ratio >= self.at_least
        if self.at_most is not None:
            return None if self.ours is None else self.ours <= self.at_most
        return None

    def row(self) -> dict:
        """All of it, for JSON."""
        return self._asdict() | {"ratio": self.ratio, "reached": self.reached}


def largest_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """max |a - b|; infinite where a value is not a number, which max would hide."""
    differences = [abs(x - y) for x, y in zip(a, b, strict=True)]
    return math.inf if any(map(math.isnan, differences)) else max(differences)
