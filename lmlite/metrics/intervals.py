"""How sure we are of a quality: intervals over items, spreads over runs, paired tests.

N items, S seeds (or demonstration draws), R bootstrap resamples.

Intervals are at 95 %, and every resampling starts from the same seed: equal data, equal interval.
"""

from collections.abc import Sequence
from math import comb
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: int) -> Estimate:
    """Interval of a proportion (E. B. Wilson, 1927): inside [0, 1], and never of zero width."""
    if n == 0:
        return Estimate(*[float("nan")] * 3)
    p, z2 = successes / n, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return Estimate(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def bootstrap(values: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of float [N] with its percentile bootstrap interval over items.

    Drawing N items with replacement is a multinomial draw over the distinct values, which are few
    when the values are means of right and wrong: O(R x distinct values), not O(R x N).
    """
    n = len(values)
    if n == 0:
        return Estimate(*[float("nan")] * 3)
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    low, high = np.quantile(draws @ distinct / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean(values)), float(low), float(high))


def interval(values: np.ndarray, share: bool = True) -> Estimate:
    """Mean over items of bool or float [S, N], row s being the same N items under seed s.

    Seeds share the items, so an item's mean over seeds is the unit that is resampled. Where the
    items are plainly right or wrong (one seed, or seeds that agree) this is Wilson's interval;
    where one has no value, NaN. share: whether the mean is a share of 0 .. 1; of another number,
    items that are all alike do not tell how sure it is: NaN.
    """
    items = np.mean(values, axis=0)
    if np.isnan(items).any():
        return Estimate(*[float("nan")] * 3)
    if share and np.isin(items, (0.0, 1.0)).all():
        return wilson(float(items.sum()), len(items))
    found = bootstrap(items)
    return found if share or found.low < found.high else Estimate(found.value, *[np.nan] * 2)


def paired_difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Mean of a minus that of b on the same items, from bool or float [S_a, N] and [S_b, N].

    What is resampled is the item with its difference, so that items hard for both cancel out. NaN
    where an item has no value.
    """
    difference = np.mean(a, axis=0) - np.mean(b, axis=0)
    if np.isnan(difference).any():
        return Estimate(*[float("nan")] * 3)
    return bootstrap(difference)


def spread(values: Sequence[float]) -> float:
    """Standard deviation over S runs (divided by S - 1); NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """The exact two-sided p-value that a and b, bool [N] on the same items, err equally often.

    Q. McNemar, 1947, by the binomial distribution of the items that only one of them gets right.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    one, other = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    n = one + other
    tail = sum(comb(n, i) for i in range(min(one, other) + 1)) / 2**n
    return min(1.0, 2 * tail)
