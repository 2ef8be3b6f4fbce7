"""The predictor of every arm that answers by one model: it scores choices and texts, or writes.

n examples, C choices, S samples.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from lmlite.adapt.adaptation import Adaptation
from lmlite.answers import NOT_KEPT, Answers
from lmlite.arms.arm import Cost
from lmlite.data.pack import Item, choice_item, class_item, mask_item
from lmlite.data.tasks import Example, Task
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded, encode, encode_pairs
from lmlite.icl.plan import TREE_TOKENS, groups, tree_item
from lmlite.icl.prompts import delimiter, prompt
from lmlite.icl.readings import applies, read
from lmlite.icl.score import score
from lmlite.icl.write import write
from lmlite.models.attention import Prefix
from lmlite.models.config import DecoderConfig
from lmlite.models.lm import LM
from lmlite.runtime import Meter
from lmlite.tree import flatten

Scorer = Callable[[Sequence[Item], Meter], list[np.ndarray]]
Prompts = Callable[[Sequence[Example]], list[str]]


def encode_examples(
    lm: LM, task: Task, examples: Sequence[Example], contexts: Sequence[str] | None = None
) -> list[Encoded]:
    """The tokens of each example's prompt with its choices (or its target text alone).

    contexts: whole prompts; by default those without demonstrations.
    """
    if contexts is None:
        contexts = [prompt(lm, task, (), e.prompt) for e in examples]
    between = delimiter(task)
    continuations = [[between + text for text in (e.choices or (e.target,))] for e in examples]
    if lm.config.cross or not lm.config.causal:
        return encode_pairs(lm.text, contexts, continuations)
    return encode(lm.text, contexts, continuations, special=not task.chat)


def scored_items(lm: LM, encoded: Sequence[Encoded], prefix: int = 0) -> list[Item]:
    """Items that score every choice; the first `prefix` tokens of each context are left out."""
    if lm.head is not None:
        return [_class(lm, e, range(len(e.choices))) for e in encoded]
    return [_choice(lm, e, e.choices, prefix) for e in encoded]


def training_items(lm: LM, encoded: Sequence[Encoded], targets: Sequence[int | str]) -> list[Item]:
    """Items whose only target is the true answer."""
    if lm.head is not None:
        return [_class(lm, e, [t]) for e, t in zip(encoded, targets, strict=True)]
    true = [t if isinstance(t, int) else 0 for t in targets]
    return [_choice(lm, e, [e.choices[t]]) for e, t in zip(encoded, true, strict=True)]


def fills_mask(lm: LM, examples: Sequence[Example]) -> bool:
    """Whether the task is a pattern with a mask that this model fills: it needs no head."""
    mask = lm.text.mask_token if getattr(lm.config, "masked_head", False) else None
    return mask is not None and all(mask in e.prompt for e in examples)


def _class(lm: LM, e: Encoded, classes: Sequence[int]) -> Item:
    if lm.config.cross:
        return class_item([lm.config.start_id], classes)._replace(source=_source(lm, e))
    return class_item(_stood(lm, e), classes, lm.config.reads)


def _choice(lm: LM, e: Encoded, choices: Sequence[Sequence[int]], prefix: int = 0) -> Item:
    if lm.config.cross:
        return choice_item([lm.config.start_id], choices)._replace(source=_source(lm, e))
    if not lm.config.causal:
        return _masked(lm, e, choices)
    return choice_item(e.context[prefix:], choices, prefix)


def _masked(lm: LM, e: Encoded, choices: Sequence[Sequence[int]]) -> Item:
    """A pattern with one mask token, which the verbalizers' tokens fill: PET (Schick & Schuetze
    2021, arXiv:2001.07676, section 3.1).

    On the command line the pattern is the template and the verbalizers are the choices:

        python -m experiments.compare --config=configs/compare.py:model=DIR,arms=zero-shot,lora-qv
            --config.task.template="{text} It was [MASK]." --config.task.choices="('bad','good')"

    Zero-shot is the untuned model; every tuning method then trains its masked-token scores instead
    of a new head. With RoBERTa the mask is '<mask>'. A word that is several tokens is refused.
    """
    mask = lm.text.mask_id if getattr(lm.config, "masked_head", False) else None
    if mask is None:
        raise UserError(
            f"a {lm.config.family} model without a masked-token head and a mask token answers by a "
            "classification head only; use a 'tuned' arm"
        )
    if (masks := e.context.count(mask)) != 1:
        raise UserError(
            f"a prompt has {masks} masks; a {lm.config.family} model answers by filling one: give "
            f"task.template one {lm.text.mask_token!r}"
        )
    if long := [choice for choice in choices if len(choice) != 1]:
        raise UserError(
            f"task.choices={lm.text.decode(long[0]).strip()!r} is {len(long[0])} tokens; a mask is "
            "filled with one: choose words of one token each"
        )
    ids = _stood(lm, e)
    return mask_item(ids, ids.index(mask), [choice[0] for choice in choices])


def _source(lm: LM, e: Encoded) -> np.ndarray:
    return np.asarray(_stood(lm, e), np.int32)


def _stood(lm: LM, e: Encoded) -> list[int]:
    """The context after the learned tokens that stand in every text of the model."""
    first = lm.config.vocab_size
    return [*range(first, first + lm.network.standing), *e.context]


@dataclasses.dataclass(frozen=True)
class ModelPredictor:
    """Answers with `lm` to prompts, the first tokens of which (prefix_ids) may be prefilled.

    prompts: examples -> the texts to answer; None for those without demonstrations. readings: of
    the scores of choices beside the plain one, see `lmlite.icl.readings`. adaptation: what tuning
    added to the base model. tree_tokens: bounds the memory of scoring, see `lmlite.icl.plan`. kept:
    where answers are left while an evaluation runs, see `keeping`. scorer: what gives an item's
    scores in place of `lm`, where arms are scored together.
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
        encoded = self._encoded(examples)
        scores = self.scores(encoded, meter)

        def of_prompts(others: Sequence[Example]) -> list[np.ndarray]:
            if fills_mask(self.lm, others):  # a content-free text may be a mask itself
                mask = self.lm.text.mask_token
                others = [e for e in others if e.prompt.count(mask) == 1]
            return self.scores(self._encoded(others), meter)

        def of_texts(others: Sequence[Example]) -> list[np.ndarray]:
            bare = [e.prompt for e in others]
            return self.scores(encode_examples(self.lm, self.task, others, bare), meter)

        tokens = [np.array([len(c) for c in e.choices]) for e in encoded]
        return {"": scores} | {
            name: read(name, self.task, examples, scores, tokens, of_prompts, of_texts)
            for name in self.readings
            if applies(name, examples)
        }

    def write(self, examples: Sequence[Example], meter: Meter) -> list[list[str]]:
        """See `Predictor`."""
        encoded = self._encoded(examples)
        shared = self._shared(encoded)
        kept = self.kept, meter
        return write(self.lm, encoded, shared, self.prefix, self.task.generation, *kept)

    def scores(self, encoded: Sequence[Encoded], meter: Meter) -> list[np.ndarray]:
        """Summed log-probabilities float64[C] of the choices of each encoded prompt."""
        P = len(self.prefix_ids)
        shares = self._shared(encoded)
        found: list[np.ndarray] = [np.empty(0)] * len(encoded)
        for shared in (True, False):
            chosen = [i for i, s in enumerate(shares) if s == shared]
            own = [encoded[i] for i in chosen]
            trees, items = self._planned(own, P if shared else 0)
            sums = self._sums(items, self.prefix if shared else None, meter)
            for tree, values in zip(trees, sums, strict=True):
                ends = np.cumsum([len(own[j].choices) for j in tree])
                for j, part in zip(tree, np.split(values, ends[:-1]), strict=True):
                    found[chosen[j]] = part
        return found

    def _sums(self, items: Sequence[Item], prefix, meter: Meter) -> list[np.ndarray]:
        if self.scorer is not None:
            return self.scorer(items, meter) if items else []
        lm, limit = self.lm, self.lm.config.max_positions
        return score(lm.network, lm.params, items, limit, meter, prefix, kept=self.kept)

    def _planned(self, encoded: Sequence[Encoded], skip: int) -> tuple[list[list[int]], list[Item]]:
        """Which texts are computed together, and the item of each such group."""
        lm = self.lm
        if lm.head is not None or not isinstance(lm.config, DecoderConfig):
            return [[i] for i in range(len(encoded))], scored_items(lm, encoded, skip)
        own = [Encoded(e.context[skip:], e.choices) for e in encoded]
        trees = groups(own, self.tree_tokens)
        return trees, [self._item([own[i] for i in tree], skip) for tree in trees]

    def _item(self, texts: Sequence[Encoded], skip: int) -> Item:
        return tree_item(texts, skip) if len(texts) > 1 else choice_item(*texts[0], skip)

    def _fitted(self) -> Iterator[np.ndarray]:
        """What tells this fit's answers from those of another of the same run."""
        yield np.asarray(self.prefix_ids, np.int32)
        moved = flatten(self.adaptation.params) if self.adaptation else {}
        yield from (np.asarray(moved[path]) for path in sorted(moved))

    def _encoded(self, examples: Sequence[Example]) -> list[Encoded]:
        contexts = None if self.prompts is None else self.prompts(examples)
        return encode_examples(self.lm, self.task, examples, contexts)

    def _shared(self, encoded: Sequence[Encoded]) -> list[bool]:
        """A query whose first token merged with the context's last cannot share the prefix."""
        P = len(self.prefix_ids)
        return [tuple(e.context[:P]) == self.prefix_ids and len(e.context) > P for e in encoded]
