"""The predictor of every arm that answers by one model: it scores choices and texts, or writes.

n examples, C choices, S samples.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np

from lmlite.adapt.adaptation import Adaptation
from lmlite.answers import NOT_KEPT, Answers
from lmlite.arms.arm import Cost
from lmlite.arms.demonstrations import Same
from lmlite.arms.items import encode_examples, fills_mask, planned, scored_items
from lmlite.data.item import Item
from lmlite.data.task import Example, Task
from lmlite.icl.encode import Encoded
from lmlite.icl.prompts import delimiter, prompt
from lmlite.icl.readings import applies, asked_by, read
from lmlite.icl.score import score
from lmlite.icl.write import write
from lmlite.models.attention import Prefix
from lmlite.models.lm import LM
from lmlite.models.trees import TREE_TOKENS
from lmlite.runtime import Meter
from lmlite.tree import flatten

Scorer = Callable[[Sequence[Item], Meter], list[np.ndarray]]
Prompts = Callable[[Sequence[Example], Meter], list[str]]


@dataclasses.dataclass(frozen=True)
class ModelPredictor:
    """Answers with `lm` to prompts, the first tokens of which (prefix_ids) may be prefilled.

    prompts: examples -> the texts to answer; None for those without demonstrations. readings: of
    the scores of choices beside the plain one, see `lmlite.icl.readings`. adaptation: what tuning
    added to the base model. tree_tokens: bounds the memory of answering, see `lmlite.models.trees`
    and `lmlite.icl.write`. kept: where answers are left while an evaluation runs, see `keeping`.
    scorer: what gives an item's scores in place of `lm`, where arms are scored together.
    """

    lm: LM
    task: Task
    cost: Cost
    prompts: Prompts | None = None
    prefix_ids: tuple[int, ...] = ()
    prefix: tuple[Prefix, ...] | None = None
    readings: tuple[str, ...] = ()
    adaptation: Adaptation | None = None
    tree_tokens: int = TREE_TOKENS
    scorer: Scorer | None = None
    kept: Answers = NOT_KEPT
    words: ClassVar[tuple[str, ...]] = ()

    def keeping(self, folder: Path) -> "ModelPredictor":
        """See `Predictor`."""
        return dataclasses.replace(self, kept=Answers(folder, self._fitted()))

    def predict(self, examples: Sequence[Example], meter: Meter) -> Mapping[str, list[np.ndarray]]:
        """See `Predictor`."""
        encoded = self._encoded(examples, meter)
        scored_items(self.lm, encoded[:1])  # an error is to speak of a query, not of what is asked
        names = [name for name in self.readings if applies(name, examples)]
        asked = [self._asked(name, examples, meter) for name in names]  # scored in the same batches
        found = iter(self.scores([*encoded, *chain.from_iterable(asked)], meter))
        scores, *others = ([next(found) for _ in part] for part in (encoded, *asked))
        tokens = [np.array([len(c) for c in e.choices]) for e in encoded]
        plain = [s.reshape(-1) for s in scores]  # [2, 1] of a text, [C] of choices
        return {"": plain} | {
            name: read(name, examples, scores, tokens, own)
            for name, own in zip(names, others, strict=True)
        }

    @property
    def of_texts(self) -> bool:
        """See `Predictor`: a head scores classes."""
        return self.lm.head is None

    def spaces(self, examples: Sequence[Example]) -> list[str]:
        """See `Predictor`: what a prompt ends in, and what stands between it and its text.

        Only behind nothing else does a prompt end in what its demonstrations end in: those found
        for each query are not looked up again for that.
        """
        shown = self.prompts.demonstrations if isinstance(self.prompts, Same) else ()
        texts = [prompt(self.lm, self.task, shown, e.prompt) for e in examples]
        return [text[len(text.rstrip()) :] + delimiter(self.task) for text in texts]

    def write(self, examples: Sequence[Example], meter: Meter, seed: int) -> list[list[str]]:
        """See `Predictor`."""
        encoded = self._encoded(examples, meter)
        shared = self._shared(encoded)
        bounds = self.task.generation, self.tree_tokens
        return write(self.lm, encoded, shared, self.prefix, *bounds, self.kept, meter, seed)

    def scores(self, encoded: Sequence[Encoded], meter: Meter) -> list[np.ndarray]:
        """Summed log-probabilities float64[C] of the choices of each encoded prompt; float64[2, C]
        where the task asks what is greedy, see `lmlite.icl.score`.
        """
        P = len(self.prefix_ids)
        shares = self._shared(encoded)
        found: list[np.ndarray] = [np.empty(0)] * len(encoded)
        for shared in (True, False):
            chosen = [i for i, s in enumerate(shares) if s == shared]
            own = [encoded[i] for i in chosen]
            trees, items = planned(self.lm, own, self.tree_tokens, P if shared else 0)
            sums = self._sums(items, self.prefix if shared else None, meter)
            for tree, values in zip(trees, sums, strict=True):
                ends = np.cumsum([len(own[j].choices) for j in tree])
                for j, part in zip(tree, np.split(values, ends[:-1], axis=-1), strict=True):
                    found[chosen[j]] = part
        return found

    def _sums(self, items: Sequence[Item], prefix, meter: Meter) -> list[np.ndarray]:
        if self.scorer is not None:
            return self.scorer(items, meter) if items else []
        lm, limit = self.lm, self.lm.config.max_positions
        greedy = self.task.asks_greedy
        return score(
            lm.network, lm.params, items, limit, meter, prefix, kept=self.kept, greedy=greedy
        )

    def _fitted(self) -> Iterator[np.ndarray]:
        """What tells this fit's answers from those of another of the same run."""
        yield np.asarray(self.prefix_ids, np.int32)
        moved = flatten(self.adaptation.params) if self.adaptation else {}
        yield from (np.asarray(moved[path]) for path in sorted(moved))

    def _encoded(self, examples: Sequence[Example], meter: Meter) -> list[Encoded]:
        contexts = None if self.prompts is None else self.prompts(examples, meter)
        return encode_examples(self.lm, self.task, examples, contexts)

    def _asked(self, reading: str, examples: Sequence[Example], meter: Meter) -> list[Encoded]:
        """What a reading of these examples' scores needs beside them."""
        others, bare = asked_by(reading, self.task, examples)
        if bare:
            prompts = [e.prompt for e in others]
            return encode_examples(self.lm, self.task, others, prompts)
        if others and fills_mask(self.lm, others):  # a content-free text may be a mask itself
            mask = self.lm.text.mask_token
            others = [e for e in others if e.prompt.count(mask) == 1]
        return self._encoded(others, meter)

    def _shared(self, encoded: Sequence[Encoded]) -> list[bool]:
        """A query whose first token merged with the context's last cannot share the prefix."""
        P = len(self.prefix_ids)
        return [tuple(e.context[:P]) == self.prefix_ids and len(e.context) > P for e in encoded]
