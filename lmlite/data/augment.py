"""Copies of training examples with some of the prompt's tokens gone or swapped, or reworded."""

import importlib
import re
from collections.abc import Callable, Sequence, Set

import numpy as np

from lmlite.errors import UserError


def perturbed(
    ids: Sequence[int],
    drop: float,
    swap: float,
    draw: np.random.Generator,
    fixed: Set[int] = frozenset(),
) -> list[int]:
    """`ids` with adjacent pairs swapped and then tokens dropped, each by its probability, but for
    those in `fixed`.

    Pairs do not overlap; at least one token stays (EDA: Wei & Zou 2019, arXiv:1901.11196).
    """
    out, i = list(ids), 0
    while i + 1 < len(out):
        if draw.random() < swap and fixed.isdisjoint(out[i : i + 2]):
            out[i], out[i + 1] = out[i + 1], out[i]
            i += 1
        i += 1
    kept = [token for token in out if draw.random() >= drop or token in fixed]
    return kept or out[:1]


def inner(ids: Sequence[int], fixed: Sequence[int]) -> slice:
    """Where `ids` differ from `fixed`, the same template filled in with nothing.

    What both begin or end with is the template's own, special tokens included.
    """

    def same(a, b):
        apart = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        return next(apart, min(len(a), len(b)))

    start = same(ids, fixed)
    end = same(ids[start:][::-1], fixed[start:][::-1])
    return slice(start, len(ids) - end)


def reworded(prompt: str, pieces: Sequence[str], other: Callable[[str], str]) -> str:
    """The prompt with `other` of each text between the template's fixed pieces; of all of it where
    they are not found.
    """
    found = re.fullmatch("(.*?)".join(map(re.escape, pieces)), prompt, re.DOTALL)
    if not found:
        return other(prompt)
    texts = [other(text) if text.strip() else text for text in found.groups()]
    return pieces[0] + "".join(t + p for t, p in zip(texts, pieces[1:], strict=True))


def hook(name: str) -> Callable[[str], str]:
    """The function `module:function`, text -> text, for example a translation there and back.

    Raises UserError where there is none, and when it fails or gives no text.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"data.rewrite={name!r} is no module:function ({error})") from error
    if not callable(found):
        raise UserError(f"data.rewrite={name!r} is no function")

    def checked(text: str) -> str:
        try:
            made = found(text)
        except Exception as error:
            raise UserError(f"data.rewrite={name!r} fails at {text[:40]!r}: {error!r}") from error
        if not isinstance(made, str):
            raise UserError(f"data.rewrite={name!r} gives {made!r} for {text[:40]!r}, not a text")
        return made

    return checked
