"""Training examples as a tuner sees them: balanced, copied with changes, smoothed.

C choices.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lmlite.arms.items import encode_examples, scored_items, training_items
from lmlite.data.augment import hook, inner, perturbed, reworded
from lmlite.data.balance import SAMPLINGS, balanced_weights, resampled
from lmlite.data.item import Item
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded
from lmlite.icl.prompts import prompt
from lmlite.models.lm import LM


@dataclasses.dataclass(frozen=True)
class Handling:
    """What happens to the training examples, and to them alone; by default nothing.

    class_weights: 'balanced' or, as '1,2.5', a number a class, that multiply the loss. sampling:
    'over' or 'under', as many of each class. label_smoothing: the part of the answer's weight that
    is spread over all choices (Szegedy et al. 2016, arXiv:1512.00567, section 7). copies: further
    copies of each example, in whose prompts tokens are dropped or adjacent ones swapped with the
    probabilities token_dropout and token_swap; the template's own tokens and the answer stay (and,
    of a template with several columns, their like within the text). rewrite: 'module:function',
    what makes another text of each column of a copy first.
    """

    class_weights: str = ""
    sampling: str = ""
    label_smoothing: float = 0.0
    copies: int = 0
    token_dropout: float = 0.0
    token_swap: float = 0.0
    rewrite: str = ""

    def __post_init__(self):
        _numbers(self.class_weights)
        if self.sampling not in SAMPLINGS:
            raise UserError(f"data.sampling={self.sampling!r} is unknown; known: over, under")
        for name in ("label_smoothing", "token_dropout", "token_swap"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"data.{name}={getattr(self, name)} must be at least 0, below 1")
        changes = self.token_dropout or self.token_swap or self.rewrite
        if self.copies < 0 or bool(changes) != bool(self.copies):
            raise UserError(
                f"data.copies={self.copies} copies are made where token_dropout, token_swap or "
                "rewrite changes them, and only there; set both or none"
            )

    def items(self, lm: LM, task: Task, examples: Sequence[Example], seed: int) -> list[Item]:
        """The training items. Raises UserError where a setting does not fit the task."""
        if self.class_weights or self.sampling or self.label_smoothing:
            _check_classes(task, _numbers(self.class_weights))
            chosen = resampled([e.target for e in examples], self.sampling, seed)
            examples = [examples[i] for i in chosen]
        encoded = encode_examples(lm, task, examples)
        for copy in range(self.copies):
            encoded += self._copied(lm, task, examples, seed, copy)
        targets = [e.target for e in examples] * (1 + self.copies)
        return self._shared(lm, task, encoded, targets)

    def _copied(self, lm, task, examples, seed: int, copy: int) -> list[Encoded]:
        if self.rewrite:
            other, pieces = hook(self.rewrite), task.frame("\0").split("\0")
            examples = [
                dataclasses.replace(e, prompt=reworded(e.prompt, pieces, other)) for e in examples
            ]
        empty, *filled = (_framed(lm, task, text) for text in ("", "a", "1"))
        several = task.frame("\0").count("\0") > 1
        own = {*empty} | ({*filled[0]} & {*filled[1]}) if several else set()
        out = []
        for i, one in enumerate(encode_examples(lm, task, examples)):
            draw, where = np.random.default_rng([seed, copy, i]), inner(one.context, empty)
            rates = self.token_dropout, self.token_swap
            ids = perturbed(one.context[where], *rates, draw, own)
            context = [*one.context[: where.start], *ids, *one.context[where.stop :]]
            out.append(one._replace(context=context))
        return out

    def _shared(self, lm, task, encoded, targets) -> list[Item]:
        """Items with what each of their choices counts for."""
        if not (self.class_weights or self.label_smoothing):
            return training_items(lm, encoded, targets)
        weights = _numbers(self.class_weights) or (1.0,) * len(task.choices)
        if self.class_weights == "balanced":
            weights = balanced_weights(targets, len(task.choices))
        if not self.label_smoothing:
            items = training_items(lm, encoded, targets)
            alone = lm.head is None  # then the true answer is the item's only choice
            return [
                item._replace(shares=(weights[t],) if alone else tuple(weights))
                for item, t in zip(items, targets, strict=True)
            ]
        items = scored_items(lm, encoded)
        return [
            item._replace(shares=self._smoothed(len(e.choices), t, weights[t]))
            for item, e, t in zip(items, encoded, targets, strict=True)
        ]

    def _smoothed(self, choices: int, target: int, weight: float) -> tuple[float, ...]:
        each = self.label_smoothing / choices
        shares = [each + (1 - self.label_smoothing) * (c == target) for c in range(choices)]
        return tuple(weight * share for share in shares)


def _framed(lm: LM, task: Task, text: str) -> list[int]:
    """The template filled in with one text."""
    return lm.text.encode(prompt(lm, task, (), task.frame(text)).rstrip(), special=not task.chat)


def _numbers(weights: str) -> tuple[float, ...]:
    """The numbers of '1,2.5'; none of '' and 'balanced'."""
    if weights in ("", "balanced"):
        return ()
    try:
        found = tuple(float(number) for number in weights.strip("()").split(","))
    except ValueError as error:
        raise UserError(
            f"data.class_weights={weights!r} is neither 'balanced' nor numbers like '1,2.5'"
        ) from error
    if not all(0 <= number < math.inf for number in found) or not any(found):
        raise UserError(
            f"data.class_weights={weights!r} must be finite, not negative, and not all of them 0"
        )
    return found


def _check_classes(task: Task, given: tuple[float, ...]) -> None:
    classes = len(task.choices)
    if not classes:
        raise UserError("data.class_weights, sampling and label_smoothing need task.choices")
    if given and len(given) != classes:
        raise UserError(f"data.class_weights={given} must be {classes} numbers, one a class")
