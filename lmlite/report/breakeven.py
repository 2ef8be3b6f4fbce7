"""After how many queries does tuning cost less time than a prompt with demonstrations?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lmlite.report.summary import Summary

PROMPTED = "in-context"  # how the family of every arm that reads demonstrations begins


class BreakEven(NamedTuple):
    """From `queries` on (inf: never), `tuned` has taken less time in all than `prompted`."""

    tuned: str
    prompted: str
    queries: float


def break_even(summaries: Sequence[Summary]) -> list[BreakEven]:
    """Each tuned arm against the most accurate few-shot arm that is not more accurate than it.

    Tuned is every arm outside the in-context families. A tuned arm is left out where no few-shot
    arm is as inaccurate, or where a time is unknown.
    """
    prompted = [s for s in summaries if s.family.startswith(PROMPTED) and s.labels > 0]
    found = []
    for tuned in summaries:
        rivals = [s for s in prompted if s.merit <= tuned.merit]
        if rivals and not tuned.family.startswith(PROMPTED):
            rival = max(rivals, key=lambda s: s.merit)
            found.append(BreakEven(tuned.arm, rival.arm, _queries(tuned, rival)))
    return [b for b in found if not math.isnan(b.queries)]


def _queries(tuned: Summary, prompted: Summary) -> float:
    """The least count from which on fitting plus queries takes `tuned` less time, and stays so."""
    extra = tuned.fit_seconds - prompted.fit_seconds
    saved = prompted.query_seconds - tuned.query_seconds
    if math.isnan(extra) or math.isnan(saved):
        return math.nan
    return max(1, math.floor(extra / saved) + 1) if saved > 0 else math.inf
