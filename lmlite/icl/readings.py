"""Readings of the same choices: what is made of their scores, and what else has to be scored.

n examples, C choices.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lmlite.data.splits import position
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl import calibrate

Scores = list[np.ndarray]
READINGS = ("length", "bytes", "contextual", "domain", "batch", "pmi")
COMPARED = ("contextual", "domain")  # with prompts that say nothing
_LONGEST_WORD = 16  # characters a word on average; where there are more, spaces part no words
_DOMAIN_TEXTS = 20  # Fei et al. 2023, section 4.1


def check(names: Sequence[str]) -> None:
    """Raises UserError for an unknown reading: an arm is to say so before it is fitted."""
    for name in names:
        if name not in READINGS:
            raise UserError(f"reading {name!r} is unknown; known: {', '.join(READINGS)}")


def applies(name: str, examples: Sequence[Example]) -> bool:
    """Whether a reading has a meaning here: of texts none has, those that compare with other
    prompts need the same choices for all examples, and that of a batch as many.
    """
    if name in COMPARED:
        alike = len({e.choices for e in examples}) == 1
    else:
        alike = name != "batch" or len({len(e.choices) for e in examples}) == 1
    return bool(examples[0].choices) and alike


class Asked(NamedTuple):
    """What else a reading has to score: the choices of examples, `bare` or behind what the others
    stand behind.
    """

    examples: list[Example]
    bare: bool = False


def asked_by(name: str, task: Task, examples: Sequence[Example]) -> Asked:
    """What a reading of the scores of `examples` needs."""
    if name == "pmi":
        return Asked(_premised(task, examples), bare=True)
    if name not in COMPARED:
        return Asked([])
    texts = task.content_free if name == "contextual" else _domain_texts(task)
    return Asked(_filled(examples[0], texts))


def read(
    name: str, examples: Sequence[Example], scores: Scores, tokens: Scores, others: Scores
) -> Scores:
    """Scores [C] an example under a reading.

    tokens: int[C], how many each choice has. others: the scores of what is `asked_by` it.
    """
    if name == "length":
        return [calibrate.length_normalised(s, t) for s, t in zip(scores, tokens, strict=True)]
    if name == "bytes":
        sizes = [[len(c.encode()) for c in e.choices] for e in examples]
        return [calibrate.length_normalised(s, t) for s, t in zip(scores, sizes, strict=True)]
    if name == "pmi":
        return calibrate.pmi(scores, others)
    if name == "batch":
        return list(calibrate.batch(np.stack(scores)))
    return list(calibrate.contextual(np.stack(scores), np.stack(others)))


def _filled(like: Example, prompts: Sequence[str]) -> list[Example]:
    return [dataclasses.replace(like, id=f"free-{i}", prompt=p) for i, p in enumerate(prompts)]


def _premised(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples with only what the prompt says after its last column."""
    premise = task.premise.lstrip("\n") or task.content_free[-1]
    return [dataclasses.replace(e, prompt=premise) for e in examples]


def _domain_texts(task: Task) -> list[str]:
    """Prompts of random words of the training prompts, as long as those on average.

    Domain-context calibration: Fei et al. 2023, arXiv:2305.19148, section 4.
    """
    bodies = [_body(task, e.prompt) for e in task.train[:1000]]
    count = sum(len(body.split()) for body in bodies)
    spaced = sum(map(len, bodies)) < _LONGEST_WORD * count
    words = [word for body in bodies for word in (body.split() if spaced else body)]
    if not words:
        raise UserError(
            "reading 'domain' finds no words of their own in the training prompts; leave it out"
        )
    length = max(1, round(len(words) / len(bodies)))

    def drawn(text: int) -> str:
        places = (position("domain", text, str(i)) for i in range(length))
        return (" " if spaced else "").join(words[int(place * len(words))] for place in places)

    return [task.frame(drawn(text)) for text in range(_DOMAIN_TEXTS)]


def _body(task: Task, prompt: str) -> str:
    """A prompt without what the template says around its columns, nor its words between them."""
    around = task.frame("\0").split("\0")
    inner = prompt.removeprefix(around[0]).removesuffix(around[-1])
    fixed = set(" ".join(around[1:-1]).split())
    return " ".join(word for word in inner.split() if word not in fixed) if fixed else inner
