"""A predictor that answers with words of its own, found from the examples, instead of the given."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmlite.answers import Answers
from lmlite.arms.arm import Cost, Labelled
from lmlite.arms.choices import ModelPredictor
from lmlite.arms.items import encode_examples, scored_items
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded
from lmlite.icl.label_words import find_words
from lmlite.models.lm import LM
from lmlite.runtime import Meter


def found_words(lm: LM, task: Task, examples: Sequence[Example], meter: Meter) -> tuple[str, ...]:
    """A label word for each of the task's choices; see `lmlite.icl.label_words`.

    Prompts stand without demonstrations. Raises UserError for a task whose items have no choices in
    common.
    """
    if not task.choices:
        raise UserError(
            "label_words='found' needs task.choices, the same for all items; set 'given'"
        )

    def tokens(words: list[str]) -> list[list[int]]:
        return encode_examples(lm, task, worded(examples[:1], tuple(words)))[0].choices

    encoded = encode_examples(lm, task, examples)
    items = scored_items(lm, [Encoded(e.context, [[0]]) for e in encoded])
    return find_words(lm, items, [e.target for e in examples], task.choices, tokens, meter)


def worded(examples: Sequence[Example], words: tuple[str, ...]) -> tuple[Example, ...]:
    """The examples with other words for their choices."""
    return tuple(dataclasses.replace(e, choices=words) for e in examples)


def worded_data(data: Labelled, words: tuple[str, ...]) -> Labelled:
    """Labelled examples with other words for their choices."""
    return Labelled(worded(data.train, words), worded(data.dev, words))


@dataclasses.dataclass(frozen=True)
class Worded:
    """`inner`, asked with `words` for the choices."""

    inner: ModelPredictor
    words: tuple[str, ...]

    @property
    def lm(self) -> LM:
        """The model that answers."""
        return self.inner.lm

    @property
    def cost(self) -> Cost:
        """See `Predictor`."""
        return self.inner.cost

    @property
    def kept(self) -> Answers:
        """See `Predictor`."""
        return self.inner.kept

    def keeping(self, folder: Path) -> "Worded":
        """See `Predictor`."""
        return Worded(self.inner.keeping(folder), self.words)

    def predict(self, examples: Sequence[Example], meter: Meter) -> Mapping[str, list[np.ndarray]]:
        """See `Predictor`."""
        return self.inner.predict(worded(examples, self.words), meter)

    @property
    def of_texts(self) -> bool:
        """See `Predictor`."""
        return self.inner.of_texts

    def spaces(self, examples: Sequence[Example]) -> list[str]:
        """See `Predictor`."""
        return self.inner.spaces(examples)

    def write(self, examples: Sequence[Example], meter: Meter, seed: int) -> list[list[str]]:
        """See `Predictor`."""
        return self.inner.write(examples, meter, seed)
