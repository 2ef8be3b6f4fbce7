"""Values of single items for a measure of all of them together, by leaving each out.

N items, C classes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lmlite.metrics import classes


def pseudo_values(value: float, left_out: np.ndarray) -> np.ndarray:
    """float [N], whose mean is `value` and whose variance is that of its jackknife.

    value: the measure of all; left_out: float [N], that without each item. N value - (N - 1)
    left_out (J. W. Tukey, 1958), moved to the value as mean.
    """
    if len(left_out) == 1:
        return np.array([value])
    return value + (len(left_out) - 1) * (np.mean(left_out) - left_out)


def from_counts(
    function: Callable[[np.ndarray], float], predictions: np.ndarray, targets: np.ndarray, size: int
) -> np.ndarray:
    """float [N]: a function of `confusion` counts [size, size] without each item.

    Items of the same target and prediction are alike, so it is computed once for them.
    """
    counts = classes.confusion(predictions, targets, size)
    cells, which = np.unique(np.asarray(targets) * size + predictions, return_inverse=True)
    values = []
    for cell in cells:
        others = counts.copy()
        others.flat[cell] -= 1
        values.append(function(others))
    return np.array(values)[which]


def calibration_error(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float [N]: `expected_calibration_error` without each item; O(N^2)."""
    others = ~np.eye(len(targets), dtype=bool)
    return np.array([classes.expected_calibration_error(scores, targets, mask) for mask in others])


def perplexity(logprobs: Sequence[float], sizes: Sequence[int]) -> np.ndarray:
    """float [N]: exp of the negative sum of logprobs over that of sizes, without each text."""
    logprobs, sizes = np.asarray(logprobs), np.asarray(sizes)
    return np.exp((logprobs - logprobs.sum()) / (sizes.sum() - sizes))
