"""The measures that a task can name: one table, and what each is computed from.

n items, S samples of an item, C choices.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lmlite.errors import UserError
from lmlite.metrics import classes, jackknife, text
from lmlite.metrics.code import pass_at_k
from lmlite.metrics.kinds import Answers, Choices, Likelihoods, Texts


class Measure(NamedTuple):
    """of: what it is computed from. items: its value for each item, float[n], whose mean it is; of
    a measure of all items together (`whole`) made so that it is, and None each where it has none.
    unit: 'percent' of 0 .. 1, or 'plain'. lower: whether less is better.
    """

    of: type
    items: Callable[[Answers], Sequence[float | None]]
    whole: Callable[[Answers], float] | None = None
    unit: str = "percent"
    lower: bool = False

    @property
    def share(self) -> bool:
        """Whether it is a mean of items that count 0 to 1 each."""
        return self.unit == "percent"

    def value(self, answers: Answers) -> float:
        """Over all items."""
        return float(self.whole(answers) if self.whole else np.mean(self.items(answers)))


def _right(a: Choices) -> np.ndarray:
    return (a.chosen == a.targets).astype(float)


def _whole(of: type, whole: Callable, left_out: Callable, **fields) -> Measure:
    """A measure of all items together; left_out: float[n], its values without each of them."""

    def items(a: Answers) -> Sequence[float | None]:
        with np.errstate(all="ignore"):
            found = jackknife.pseudo_values(whole(a), left_out(a))
        return found if np.isfinite(found).all() else [None] * len(found)

    return Measure(of, items=items, whole=whole, **fields)


def _counted(function: Callable[[np.ndarray], float], **fields) -> Measure:
    """A measure of the confusion."""

    def left_out(a: Choices) -> np.ndarray:
        return jackknife.from_counts(function, a.chosen, a.targets, max(map(len, a.scores)))

    return _whole(Choices, lambda a: function(a.confusion()), left_out, **fields)


def _padded(a: Choices) -> np.ndarray:
    """Scores [n, C]; those of choices that an item lacks are -inf, as probabilities 0."""
    scores = np.full((len(a.scores), max(map(len, a.scores))), -np.inf)
    for row, own in zip(scores, a.scores, strict=True):
        row[: len(own)] = own
    return scores


def _log_likelihood(a: Choices) -> np.ndarray:
    pairs = zip(a.scores, a.targets, strict=True)
    return np.array([classes.mean_log_likelihood(s[None], np.array([t])) for s, t in pairs])


def _per(size: Callable[[str], int]) -> Measure:
    """Accuracy where a choice's score is over its size, which is that of lm-evaluation-harness."""

    def items(a: Choices) -> Sequence[float | None]:
        if not a.texts:
            return [None] * len(a.targets)
        pairs = zip(a.scores, a.texts, strict=True)
        chosen = [int(np.argmax(s / [size(text) for text in own])) for s, own in pairs]
        return (np.array(chosen) == a.targets).astype(float)

    def whole(a: Choices) -> float:
        return float(np.mean(items(a))) if a.texts else float("nan")

    return Measure(Choices, items=items, whole=whole)


def _brier(a: Choices) -> np.ndarray:
    return np.array([classes.brier_score(s, t) for s, t in zip(a.scores, a.targets, strict=True)])


def _written(function: Callable) -> Measure:
    """A measure of each text beside the right answer that it is most like."""

    def items(a: Texts) -> np.ndarray:
        found = function(a.written, a.targets)
        for others in a.others():
            pairs = zip(others, a.targets, strict=True)
            own = [target if other is None else other for other, target in pairs]
            found = np.maximum(found, function(a.written, own))
        return found

    return Measure(Texts, items=items)


def _exact_match(a: Texts) -> np.ndarray:
    same = _written(text.exact_match).items
    further = [list(map(a.form, own)) for own in a.further]
    return same(Texts(*(list(map(a.form, t)) for t in (a.written, a.targets)), further=further))


def _corpus(name: str, lower: bool = False) -> Measure:
    """A measure of all texts together, whose items are what each does to it."""
    return Measure(
        Texts,
        items=lambda a: text.corpus_items(name, a.written, a.targets, *a.others()),
        whole=lambda a: text.corpus_score(name, a.written, a.targets, *a.others()),
        unit="plain",
        lower=lower,
    )


def _bits(a: Likelihoods) -> np.ndarray:
    """Linear in an item's bits and bytes around those of all: a ratio's mean and its variance.

    R + (bits - R bytes) / mean bytes, R the bits per byte of all. Bits over the mean bytes have the
    same mean, but vary with the lengths of the texts.
    """
    sizes = a.bytes()
    bits = -np.asarray(a.logprobs) / np.log(2)
    ratio = bits.sum() / sizes.sum()
    return ratio + (bits - ratio * sizes) / sizes.mean()


def _perplexity(sizes: Callable[[Likelihoods], Sequence[int]]) -> Measure:
    """exp of the negative log-probabilities of all over the sizes of their texts."""

    def whole(a: Likelihoods) -> float:
        return text.perplexity(a.logprobs, sizes(a))

    def left_out(a: Likelihoods) -> np.ndarray:
        return jackknife.perplexity(a.logprobs, sizes(a))

    return _whole(Likelihoods, whole, left_out, unit="plain", lower=True)


def _passing(k: int) -> Measure:
    def items(a: Texts) -> np.ndarray:
        return np.array([pass_at_k(len(p), sum(p), k) for p in a.passed])

    return Measure(Texts, items=items)


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(Choices, items=_right),
    "acc_norm": _per(len),
    "acc_bytes": _per(lambda text: len(text.encode())),
    "balanced_accuracy": _counted(classes.balanced_accuracy),
    "macro_f1": _counted(classes.macro_f1),
    "micro_f1": Measure(Choices, _right, whole=lambda a: classes.micro_f1(a.confusion())),
    "binary_f1": _counted(classes.binary_f1),
    "precision": _counted(classes.precision),
    "recall": _counted(classes.recall),
    "matthews": _counted(classes.matthews, unit="plain"),
    "log_likelihood": Measure(Choices, items=_log_likelihood, unit="plain"),
    "brier_score": Measure(Choices, items=_brier, unit="plain", lower=True),
    "calibration_error": _whole(
        Choices,
        whole=lambda a: classes.expected_calibration_error(_padded(a), a.targets),
        left_out=lambda a: jackknife.calibration_error(_padded(a), a.targets),
        lower=True,
    ),
    "bits_per_byte": Measure(Likelihoods, items=_bits, unit="plain", lower=True),
    "byte_perplexity": _perplexity(Likelihoods.bytes),
    "word_perplexity": _perplexity(Likelihoods.words),
    "perplexity": _perplexity(lambda a: [1] * len(a.texts)),
    "greedy_accuracy": Measure(Likelihoods, items=lambda a: np.array(a.greedy, float)),
    "exact_match": Measure(Texts, items=_exact_match),
    "f1": _written(text.token_f1),
    **{kind: _written(partial(text.rouge, kind)) for kind in ("rouge1", "rouge2", "rougeL")},
    **{name: _corpus(name) for name in ("chrf", "chrf++", "bleu", "bleu_zh")},
    "ter": _corpus("ter", lower=True),
    **{f"pass@{k}": _passing(k) for k in (1, 5, 10, 100)},
}


def named(names: Sequence[str], kind: type) -> dict[str, Measure]:
    """The measures of those names. UserError for one unknown, or not computed from `kind`."""
    for name in names:
        if name not in MEASURES or MEASURES[name].of is not kind:
            known = [n for n, measure in MEASURES.items() if measure.of is kind]
            raise UserError(f"task.metrics names {name!r}; for this task known: {', '.join(known)}")
    return {name: MEASURES[name] for name in names}
