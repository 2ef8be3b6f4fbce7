"""What answers are, for measures: choices, texts that are given, and texts that are written.

n items, S samples of an item, C choices.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lmlite.metrics import classes


class Choices(NamedTuple):
    """chosen, targets: int[n]. scores: float[C] an item; texts: its C choices,
    where the scores are their log-probabilities.
    """

    chosen: np.ndarray
    targets: np.ndarray
    scores: Sequence[np.ndarray]
    texts: Sequence[Sequence[str]] = ()

    def confusion(self) -> np.ndarray:
        """Counts [C, C]."""
        return classes.confusion(self.chosen, self.targets, max(map(len, self.scores)))


class Likelihoods(NamedTuple):
    """Of texts [n]: their log-probabilities (nats) float[n], in which the white space before each
    is counted; spaces: int[n], its bytes, () for none. greedy: bool[n], whether greedy decoding
    gives them, () where no measure asks.
    """

    logprobs: np.ndarray
    texts: Sequence[str]
    spaces: Sequence[int] = ()
    greedy: Sequence[bool] = ()

    def bytes(self) -> np.ndarray:
        """Of all that the log-probabilities are of, int[n]."""
        sizes = np.array([len(text.encode()) for text in self.texts])
        return sizes + np.asarray(self.spaces) if self.spaces else sizes

    def words(self) -> np.ndarray:
        """int[n], as lm-evaluation-harness counts them: what white space separates."""
        return np.array([len(re.split(r"\s+", text)) for text in self.texts])


class Texts(NamedTuple):
    """What was written, and what it should be; passed: bool[S] an item, for programs. further:
    an item's other right answers. form: of a text, as it is compared for equality.
    """

    written: Sequence[str]
    targets: Sequence[str]
    passed: Sequence[Sequence[bool]] = ()
    further: Sequence[Sequence[str]] = ()
    form: Callable[[str], str] = str

    def others(self) -> list[tuple[str | None, ...]]:
        """The second right answers of all items, the third ...; None of an item without it."""
        return list(itertools.zip_longest(*self.further))


Answers = Choices | Likelihoods | Texts
