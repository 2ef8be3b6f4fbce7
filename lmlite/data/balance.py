"""Classes of unequal size: weights for the loss, and examples left out or taken again.

C classes, n examples.
"""

from collections.abc import Sequence

import numpy as np

SAMPLINGS = ("", "over", "under")


def balanced_weights(targets: Sequence[int], classes: int) -> tuple[float, ...]:
    """n / (C n_c) a class, so that all classes weigh the same in all; 0 for one without examples.

    King & Zeng 2001, "Logistic Regression in Rare Events Data"; the `balanced` of scikit-learn.
    """
    counts = np.bincount(targets, minlength=classes)
    return tuple(float(len(targets) / (classes * n)) if n else 0.0 for n in counts)


def resampled(targets: Sequence[int], kind: str, seed: int) -> list[int]:
    """Indices of as many examples of every class as the largest ('over') or smallest has ('under').

    'over' takes each example once before it takes one again. The order is that of the examples,
    with those taken again at the end. '' takes each once.
    """
    everything = list(range(len(targets)))
    if not kind:
        return everything
    draw = np.random.default_rng([seed, len(targets)])
    places = [np.flatnonzero(np.asarray(targets) == c) for c in sorted(set(targets))]
    sizes = [len(p) for p in places]
    if kind == "under":
        return sorted(int(i) for p in places for i in draw.permutation(p)[: min(sizes)])
    again = []
    for p in places:
        rounds = [draw.permutation(p) for _ in range(-(-max(sizes) // len(p)) - 1)]
        again += [int(i) for i in np.concatenate([[], *rounds])[: max(sizes) - len(p)]]
    return everything + again
