"""Quality of predicted classes: pure numpy functions.

N items, C classes.

Metrics are sums over the items that count, divided once; with no such item they are NaN. `mask`
(bool [N], all items where None) says which items count, so padded batches need no trimming.
"""

import numpy as np


def accuracy(predictions: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Share of items whose prediction (int [N]) equals the target (int [N])."""
    return _mean(np.asarray(predictions) == np.asarray(targets), mask)


def confusion(
    predictions: np.ndarray, targets: np.ndarray, classes: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Counts int64 [C, C] from int [N] and int [N]: row is the target, column the prediction."""
    counts = np.zeros((classes, classes), np.int64)
    keep = slice(None) if mask is None else np.asarray(mask, bool)
    np.add.at(counts, (np.asarray(targets)[keep], np.asarray(predictions)[keep]), 1)
    return counts


def precision(counts: np.ndarray) -> float:
    """Unweighted mean over classes of the share of its predictions that are right; 0 for none.

    counts: int [C, C] of `confusion`. Classes that neither occur nor are predicted do not count.
    """
    return _over_classes(np.diag(counts), counts.sum(axis=0), counts)


def recall(counts: np.ndarray) -> float:
    """Unweighted mean over classes of the share of its items that are found; 0 for none."""
    return _over_classes(np.diag(counts), counts.sum(axis=1), counts)


def balanced_accuracy(counts: np.ndarray) -> float:
    """Recall over the classes that occur."""
    items = counts.sum(axis=1)
    return _mean(np.diag(counts) / np.maximum(items, 1), items > 0)


def macro_f1(counts: np.ndarray) -> float:
    """Unweighted mean over classes of F1, from `confusion` counts [C, C].

    A class that is neither a target nor predicted has no F1 and is left out of the mean.
    """
    return _over_classes(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1), counts)


def micro_f1(counts: np.ndarray) -> float:
    """F1 of all classes together: where every item has one class and one prediction, accuracy."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def binary_f1(counts: np.ndarray) -> float:
    """F1 of the second of two classes, 0 where it neither occurs nor is predicted; NaN of more."""
    if counts.shape != (2, 2) or not counts.sum():
        return float("nan")
    found = counts[0, 1] + counts[1, 0] + 2 * counts[1, 1]
    return float(2 * counts[1, 1] / found) if found else 0.0


def matthews(counts: np.ndarray) -> float:
    """The correlation of predictions with targets in -1 .. 1; 0 where one of them is constant.

    J. Gorodkin, 2004, equation 8 (for two classes: B. W. Matthews, 1975).
    """
    total = float(counts.sum())
    if not total:
        return float("nan")
    items, predicted = counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float)
    shared = np.trace(counts) * total - items @ predicted
    scale = np.sqrt((total**2 - predicted @ predicted) * (total**2 - items @ items))
    return float(shared / scale) if scale else 0.0


def brier_score(scores: np.ndarray, target: int) -> float:
    """Squared distance of an item's probabilities, softmax of scores [C], from its one right class.

    G. W. Brier, 1950: 0 .. 2.
    """
    likely = np.exp(scores - np.max(scores))
    return float(np.sum((likely / likely.sum() - np.eye(len(scores))[target]) ** 2))


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


def _over_classes(part: np.ndarray, whole: np.ndarray, counts: np.ndarray) -> float:
    seen = counts.sum(axis=0) + counts.sum(axis=1) > 0
    return _mean(part / np.maximum(whole, 1), seen)


def _mean(values: np.ndarray, mask: np.ndarray | None) -> float:
    keep = np.ones(len(values), bool) if mask is None else np.asarray(mask, bool)
    return float(np.sum(values, where=keep) / keep.sum()) if keep.any() else float("nan")


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    """[N, C] -> log-probabilities [N, C] in float64."""
    scores = np.asarray(scores, np.float64)
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
