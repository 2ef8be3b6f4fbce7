"""Copies of training examples with some of the prompt's tokens gone or swapped, or reworded."""

import importlib
from collections.abc import Callable, Sequence

import numpy as np

from lmlite.errors import UserError


def perturbed(ids: Sequence[int], drop: float, swap: float, draw: np.random.Generator) -> list[int]:
    """`ids` with adjacent pairs swapped and then tokens dropped, each by its probability.

    Pairs do not overlap; at least one token stays (EDA: Wei & Zou 2019, arXiv:1901.11196).
    """
    out, i = list(ids), 0
    while i + 1 < len(out):
        if draw.random() < swap:
            out[i], out[i + 1] = out[i + 1], out[i]
            i += 1
        i += 1
    kept = [token for token in out if draw.random() >= drop]
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


def hook(name: str) -> Callable[[str], str]:
    """The function `module:function`, text -> text, for example a translation there and back.

    Raises UserError where there is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"data.rewrite={name!r} is no module:function ({error})") from error
    if not callable(found):
        raise UserError(f"data.rewrite={name!r} is no function")
    return found
