"""The predictor of every arm that answers by scoring choices: tokens in, one score a choice out.

n examples, C choices, m content-free inputs.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lmlite.adapt.adaptation import Adaptation
from lmlite.arms.arm import Cost
from lmlite.data.pack import Item, choice_item, class_item
from lmlite.data.tasks import Example, Task
from lmlite.errors import UserError
from lmlite.icl import calibrate
from lmlite.icl.encode import Encoded, encode, encode_pairs
from lmlite.icl.score import score
from lmlite.models.attention import Prefix
from lmlite.models.lm import LM
from lmlite.runtime import Meter


def encode_examples(
    lm: LM, task: Task, examples: Sequence[Example], context: str = ""
) -> list[Encoded]:
    """The tokens of each example after `context`, with its choices (or its target text alone)."""
    continuations = [
        [task.target_delimiter + text for text in (e.choices or (e.target,))] for e in examples
    ]
    contexts = [context + e.prompt for e in examples]
    return (encode_pairs if lm.config.cross else encode)(lm.text, contexts, continuations)


def scored_items(lm: LM, encoded: Sequence[Encoded], prefix: int = 0) -> list[Item]:
    """Items that score every choice; the first `prefix` tokens of each context are left out."""
    _check_answers(lm)
    if lm.head is not None:
        return [_class(lm, e, range(len(e.choices))) for e in encoded]
    return [_choice(lm, e, e.choices, prefix) for e in encoded]


def training_items(lm: LM, encoded: Sequence[Encoded], targets: Sequence[int | str]) -> list[Item]:
    """Items whose only target is the true answer."""
    _check_answers(lm)
    if lm.head is not None:
        return [_class(lm, e, [t]) for e, t in zip(encoded, targets, strict=True)]
    true = [t if isinstance(t, int) else 0 for t in targets]
    return [_choice(lm, e, [e.choices[t]]) for e, t in zip(encoded, true, strict=True)]


def _class(lm: LM, e: Encoded, classes: Sequence[int]) -> Item:
    if lm.config.cross:
        return class_item([lm.config.start_id], classes)._replace(source=_source(e))
    return class_item(e.context, classes, lm.config.reads)


def _choice(lm: LM, e: Encoded, choices: Sequence[Sequence[int]], prefix: int = 0) -> Item:
    if lm.config.cross:
        return choice_item([lm.config.start_id], choices)._replace(source=_source(e))
    return choice_item(e.context[prefix:], choices, prefix)


def _source(e: Encoded) -> np.ndarray:
    return np.asarray(e.context, np.int32)


def _check_answers(lm: LM) -> None:
    if lm.head is None and not lm.config.causal:
        raise UserError(
            f"a {lm.config.family} model continues no text, so it answers by a classification head "
            "only; use a 'tuned' arm"
        )


@dataclasses.dataclass(frozen=True)
class ChoicePredictor:
    """Scores choices with `lm` after a fixed context, prefilled as `prefix` (its ids: prefix_ids).

    readings: any of 'length', 'contextual', 'batch'; the plain one is always given. adaptation:
    what tuning added to the base model.
    """

    lm: LM
    task: Task
    cost: Cost
    context: str = ""
    prefix_ids: tuple[int, ...] = ()
    prefix: tuple[Prefix, ...] | None = None
    readings: tuple[str, ...] = ()
    adaptation: Adaptation | None = None

    def predict(self, examples: Sequence[Example], meter: Meter) -> Mapping[str, list[np.ndarray]]:
        """See `Predictor`."""
        if textual := [e.id for e in examples if not e.choices]:
            raise UserError(f"example {textual[0]!r} has no choices to score; set task.choices")
        free = self._content_free(examples) if "contextual" in self.readings else []
        encoded = encode_examples(self.lm, self.task, [*examples, *free], self.context)
        scores = self._scores(encoded, meter)
        n = len(examples)
        tokens = [np.array([len(c) for c in e.choices]) for e in encoded[:n]]
        return {"": scores[:n], **_readings(self.readings, scores[:n], scores[n:], tokens)}

    def _content_free(self, examples: Sequence[Example]) -> list[Example]:
        choices = {e.choices for e in examples}
        if len(choices) > 1:
            raise UserError(
                "contextual calibration needs the same choices for every example; "
                "take 'contextual' out of the arm's readings"
            )
        first = examples[0]
        return [
            dataclasses.replace(first, id=f"free-{i}", prompt=prompt)
            for i, prompt in enumerate(self.task.content_free)
        ]

    def _scores(self, encoded: Sequence[Encoded], meter: Meter) -> list[np.ndarray]:
        lm, P = self.lm, len(self.prefix_ids)
        # A query whose first token merged with the context's last cannot share the prefix.
        shares = [tuple(e.context[:P]) == self.prefix_ids and len(e.context) > P for e in encoded]
        scores: list[np.ndarray] = [np.empty(0)] * len(encoded)
        for shared in (True, False):
            chosen = [i for i, s in enumerate(shares) if s == shared]
            items = scored_items(lm, [encoded[i] for i in chosen], P if shared else 0)
            prefix = self.prefix if shared else None
            limit = lm.config.max_positions
            found = score(lm.network, lm.params, items, limit, meter, prefix)
            for i, s in zip(chosen, found, strict=True):
                scores[i] = s
        return scores


def _readings(names, scores, free, tokens) -> dict[str, list[np.ndarray]]:
    out = {}
    for name in names:
        if name == "length":
            pairs = zip(scores, tokens, strict=True)
            out[name] = [calibrate.length_normalised(s, t) for s, t in pairs]
        elif name == "contextual":
            out[name] = list(calibrate.contextual(np.stack(scores), np.stack(free)))
        elif name == "batch":
            if len({len(s) for s in scores}) > 1:
                raise UserError("batch calibration needs the same number of choices everywhere")
            out[name] = list(calibrate.batch(np.stack(scores)))
        else:
            raise UserError(f"reading {name!r} is unknown; known: length, contextual, batch")
    return out
