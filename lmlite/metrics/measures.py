"""The measures that a task can name: one table, and what each is computed from.

n items, S samples of an item, C choices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lmlite.errors import UserError
from lmlite.metrics import classes, text
from lmlite.metrics.code import pass_at_k


class Choices(NamedTuple):
    """chosen, targets: int[n]. scores: float[C] an item."""

    chosen: np.ndarray
    targets: np.ndarray
    scores: Sequence[np.ndarray]

    def confusion(self) -> np.ndarray:
        """Counts [C, C]."""
        return classes.confusion(self.chosen, self.targets, max(map(len, self.scores)))


class Likelihoods(NamedTuple):
    """Of texts [n]: their log-probabilities (nats) float[n]."""

    logprobs: np.ndarray
    texts: Sequence[str]


class Texts(NamedTuple):
    """What was written, and what it should be; passed: bool[S] an item, for programs."""

    written: Sequence[str]
    targets: Sequence[str]
    passed: Sequence[Sequence[bool]] = ()


Answers = Choices | Likelihoods | Texts


class Measure(NamedTuple):
    """of: what it is computed from. items: its value for each item, float[n], whose mean it is (of
    a measure of all items together, one made so that it is); None where it has none, and `whole`
    is the value of all. unit: 'percent' of 0 .. 1, or 'plain'.
    lower: whether less is better.
    """

    of: type
    items: Callable[[Answers], np.ndarray] | None = None
    whole: Callable[[Answers], float] | None = None
    unit: str = "percent"
    lower: bool = False

    def value(self, answers: Answers) -> float:
        """Over all items."""
        return float(self.whole(answers) if self.whole else np.mean(self.items(answers)))


def _counted(function: Callable[[np.ndarray], float]) -> Measure:
    return Measure(Choices, whole=lambda a: function(a.confusion()))


def _scored(function: Callable, **fields) -> Measure:
    """A measure of choice scores, which must be as many for every item."""

    def whole(a: Choices) -> float:
        if len({len(s) for s in a.scores}) > 1:
            return float("nan")
        return function(np.stack(a.scores), a.targets)

    return Measure(Choices, whole=whole, **fields)


def _written(function: Callable) -> Measure:
    return Measure(Texts, items=lambda a: function(a.written, a.targets))


def _corpus(name: str) -> Measure:
    """A measure of all texts together, whose items are what each does to it."""
    return Measure(
        Texts,
        items=lambda a: text.corpus_items(name, a.written, a.targets),
        whole=lambda a: text.corpus_score(name, a.written, a.targets),
        unit="plain",
    )


def _bits(a: Likelihoods) -> np.ndarray:
    """Linear in an item's bits and bytes around those of all: a ratio's mean and its variance.

    R + (bits - R bytes) / mean bytes, R the bits per byte of all. Bits over the mean bytes have the
    same mean, but vary with the lengths of the texts.
    """
    sizes = np.array([len(t.encode()) for t in a.texts])
    bits = -np.asarray(a.logprobs) / np.log(2)
    ratio = bits.sum() / sizes.sum()
    return ratio + (bits - ratio * sizes) / sizes.mean()


def _passing(k: int) -> Measure:
    def items(a: Texts) -> np.ndarray:
        return np.array([pass_at_k(len(p), sum(p), k) for p in a.passed])

    return Measure(Texts, items=items)


_likely = partial(Measure, Likelihoods, unit="plain", lower=True)
MEASURES: dict[str, Measure] = {
    "accuracy": Measure(Choices, items=lambda a: (a.chosen == a.targets).astype(float)),
    "balanced_accuracy": _counted(classes.balanced_accuracy),
    "macro_f1": _counted(classes.macro_f1),
    "micro_f1": _counted(classes.micro_f1),
    "precision": _counted(classes.precision),
    "recall": _counted(classes.recall),
    "matthews": Measure(Choices, whole=lambda a: classes.matthews(a.confusion()), unit="plain"),
    "log_likelihood": _scored(classes.mean_log_likelihood, unit="plain"),
    "calibration_error": _scored(classes.expected_calibration_error, lower=True),
    "bits_per_byte": _likely(items=_bits),
    "byte_perplexity": _likely(whole=lambda a: text.byte_perplexity(*a)),
    "word_perplexity": _likely(whole=lambda a: text.word_perplexity(*a)),
    "perplexity": _likely(whole=lambda a: float(np.exp(-np.mean(a.logprobs)))),
    "exact_match": _written(text.exact_match),
    "f1": _written(text.token_f1),
    **{kind: _written(partial(text.rouge, kind)) for kind in ("rouge1", "rouge2", "rougeL")},
    **{name: _corpus(name) for name in ("chrf", "bleu")},
    **{f"pass@{k}": _passing(k) for k in (1, 5, 10, 100)},
}


def named(names: Sequence[str], kind: type) -> dict[str, Measure]:
    """The measures of those names. UserError for one unknown, or not computed from `kind`."""
    for name in names:
        if name not in MEASURES or MEASURES[name].of is not kind:
            known = [n for n, measure in MEASURES.items() if measure.of is kind]
            raise UserError(f"task.metrics names {name!r}; for this task known: {', '.join(known)}")
    return {name: MEASURES[name] for name in names}
