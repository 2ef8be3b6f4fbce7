"""Labelled examples as tokens, and as the items that a model trains on or is asked.

n examples, C choices.
"""

from collections.abc import Sequence

import numpy as np

from lmlite.data.item import Item, choice_item, class_item, mask_item
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded, encode, encode_pairs, spaces_moved
from lmlite.icl.plan import groups, tree_item
from lmlite.icl.prompts import delimiter, prompt
from lmlite.models.config import DecoderConfig
from lmlite.models.lm import LM

_MASKS = {"[MASK]", "<mask>"}  # of BERT and of RoBERTa


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
    written = task.generation.max_new_tokens > 0 and not any(e.choices for e in examples)
    if lm.config.cross and not written:
        contexts, continuations = spaces_moved(contexts, continuations)
    if lm.config.cross or not lm.config.causal:
        return encode_pairs(lm.text, contexts, continuations)
    return encode(lm.text, contexts, continuations, special=not task.chat, whole=written)


def scored_items(lm: LM, encoded: Sequence[Encoded], prefix: int = 0) -> list[Item]:
    """Items that score every choice; the first `prefix` tokens of each context are left out."""
    if lm.head is not None:
        return [_class(lm, e, range(len(e.choices))) for e in encoded]
    return [_choice(lm, e, e.choices, prefix) for e in encoded]


def planned(
    lm: LM, encoded: Sequence[Encoded], most: int, prefix: int = 0
) -> tuple[list[list[int]], list[Item]]:
    """Which texts are computed together, and the item of each such group, that scores all choices.

    most: tokens of a tree of several texts, which share what they begin with; prefix: as in
    `scored_items`.
    """
    if lm.head is not None or not isinstance(lm.config, DecoderConfig):
        return [[i] for i in range(len(encoded))], scored_items(lm, encoded, prefix)
    own = [Encoded(e.context[prefix:], e.choices) for e in encoded]
    trees = groups(own, most)
    return trees, [_tree([own[i] for i in tree], prefix) for tree in trees]


def _tree(texts: Sequence[Encoded], prefix: int) -> Item:
    """The texts as one item; a text by itself needs no tree where no two choices begin alike."""
    starts = [choice[0] for choice in texts[0].choices]
    if len(texts) == 1 and len(set(starts)) == len(starts):
        return choice_item(*texts[0], prefix)
    return tree_item(texts, prefix)


def training_items(lm: LM, encoded: Sequence[Encoded], targets: Sequence[int | str]) -> list[Item]:
    """Items whose only target is the true answer."""
    if lm.head is not None:
        return [_class(lm, e, [t]) for e, t in zip(encoded, targets, strict=True)]
    true = [t if isinstance(t, int) else 0 for t in targets]
    return [_choice(lm, e, [e.choices[t]]) for e, t in zip(encoded, true, strict=True)]


def fills_mask(lm: LM, examples: Sequence[Example]) -> bool:
    """Whether the task is a pattern with a mask that this model fills: it needs no head.

    Raises UserError where the mask is another model's, which would be read as text.
    """
    mask = lm.text.mask_token if getattr(lm.config, "masked_head", False) else None
    if mask is None:
        return False
    for other in _MASKS - {mask}:
        if all(other in e.prompt for e in examples):
            raise UserError(f"task.template has {other!r}; this model fills {mask!r}, name that")
    return all(mask in e.prompt for e in examples)


def _class(lm: LM, e: Encoded, classes: Sequence[int]) -> Item:
    if lm.config.cross:
        return class_item([lm.config.start_id], classes)._replace(source=_source(lm, e))
    return class_item(_stood(lm, e), classes, lm.config.reads)


def _choice(lm: LM, e: Encoded, choices: Sequence[Sequence[int]], prefix: int = 0) -> Item:
    if lm.config.cross:
        return choice_item(lm.config.start_ids, choices)._replace(source=_source(lm, e))
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
