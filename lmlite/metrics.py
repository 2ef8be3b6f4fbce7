"""Quality of predictions and how sure we are of it: pure numpy functions.

N items, C classes, S seeds (or demonstration draws), R bootstrap resamples.

Metrics are sums over the items that count, divided once; with no such item they are NaN. `mask`
(bool [N], all items where None) says which items count, so padded batches need no trimming.
Intervals are at 95 %, and every resampling starts from the same seed: equal data, equal interval.
"""

from collections.abc import Sequence
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


def accuracy(predictions: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Share of items whose prediction (int [N]) equals the target (int [N])."""
    return _mean(np.asarray(predictions) == np.asarray(targets), mask)


def exact_match(
    predictions: Sequence[str], targets: Sequence[str], mask: np.ndarray | None = None
) -> float:
    """Share of N generated texts equal to their target, white space at either end aside."""
    hits = [p.strip() == t.strip() for p, t in zip(predictions, targets, strict=True)]
    return _mean(np.array(hits, bool), mask)


def confusion(
    predictions: np.ndarray, targets: np.ndarray, classes: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Counts int64 [C, C] from int [N] and int [N]: row is the target, column the prediction."""
    counts = np.zeros((classes, classes), np.int64)
    keep = slice(None) if mask is None else np.asarray(mask, bool)
    np.add.at(counts, (np.asarray(targets)[keep], np.asarray(predictions)[keep]), 1)
    return counts


def macro_f1(counts: np.ndarray) -> float:
    """Unweighted mean over classes of F1, from `confusion` counts [C, C].

    A class that is neither a target nor predicted has no F1 and is left out of the mean.
    """
    seen = counts.sum(axis=0) + counts.sum(axis=1)
    return _mean(2 * np.diag(counts) / np.maximum(seen, 1), seen > 0)


def mean_log_likelihood(
    scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None
) -> float:
    """Mean log-probability (nats) of the target among the choices.

    scores: float [N, C], log-probabilities up to a constant of each item; targets: int [N].
    """
    return _mean(_log_softmax(scores)[np.arange(len(targets)), targets], mask)


def expected_calibration_error(
    scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None, bins: int = 10
) -> float:
    """Gap between confidence and accuracy in `bins` equal bins of confidence, weighted by items.

    scores: float [N, C] as in `mean_log_likelihood`; confidence is the largest probability.
    Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    confidence = np.exp(_log_softmax(scores).max(axis=1))
    gap = (np.argmax(scores, axis=1) == targets) - confidence
    keep = np.ones(len(gap), bool) if mask is None else np.asarray(mask, bool)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = np.bincount(index[keep], gap[keep], minlength=bins)
    return float(np.abs(sums).sum() / keep.sum()) if keep.any() else float("nan")


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


def accuracy_interval(correct: np.ndarray) -> Estimate:
    """Accuracy over items from bool [S, N], row s being the same N items under seed s.

    Seeds share the items, so an item's mean over seeds is the unit that is resampled. Where the
    items are plainly right or wrong (one seed, or seeds that agree) this is Wilson's interval.
    """
    items = np.mean(correct, axis=0)
    if np.isin(items, (0.0, 1.0)).all():
        return wilson(float(items.sum()), len(items))
    return bootstrap(items)


def paired_difference(correct_a: np.ndarray, correct_b: np.ndarray) -> Estimate:
    """Accuracy of a minus that of b on the same items, from bool [S_a, N] and bool [S_b, N].

    What is resampled is the item with its difference, so that items hard for both cancel out.
    """
    return bootstrap(np.mean(correct_a, axis=0) - np.mean(correct_b, axis=0))


def spread(values: Sequence[float]) -> float:
    """Standard deviation over S runs (divided by S - 1); NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _mean(values: np.ndarray, mask: np.ndarray | None) -> float:
    keep = np.ones(len(values), bool) if mask is None else np.asarray(mask, bool)
    return float(np.sum(values, where=keep) / keep.sum()) if keep.any() else float("nan")


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    """[N, C] -> log-probabilities [N, C] in float64."""
    scores = np.asarray(scores, np.float64)
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
