"""Text as one stream of tokens, and windows of it.

N tokens of the stream, R windows, W tokens a window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmlite.config import nearest
from lmlite.data.sources import read
from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer


class Texts(NamedTuple):
    """Documents to train on and documents held out."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


class Stream(NamedTuple):
    """ids: int32[N]. document: int32[N], the document of each token, from 0 and rising."""

    ids: np.ndarray
    document: np.ndarray

    def windows(self, starts: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, document) int32[R, W] from each of starts [R]; beyond the end, document -1."""
        places = np.asarray(starts)[:, None] + np.arange(width)
        inside = places < len(self.ids)
        places = np.minimum(places, len(self.ids) - 1)
        return self.ids[places], np.where(inside, self.document[places], -1)


def texts(config: Any) -> Texts:
    """The text that config.data describes. These fields of it are read:

    source           see `lmlite.data.sources`; each row is a document
    column           the column of its text
    held_out_source  where the held-out text is; '' holds back the end of `source`
    held_out         the fraction of the characters of `source` that is held back

    UserError: no such column, a fraction that is not between 0 and 1.
    """
    train = _documents(config.source, config.column)
    if config.held_out_source:
        return Texts(train, _documents(config.held_out_source, config.column))
    if not 0 < config.held_out < 1:
        raise UserError(f"data.held_out={config.held_out} must lie between 0 and 1, such as 0.1")
    return _cut(train, int((1 - config.held_out) * sum(map(len, train))))


def encode(tokenizer: Tokenizer, documents: Sequence[str], end_id: int | None) -> Stream:
    """The documents one after another, each followed by `end_id` where there is one."""
    end = [] if end_id is None else [end_id]
    pieces = [ids + end for ids in tokenizer.encode_batch(list(documents), special=False)]
    numbers = [np.full(len(ids), i, np.int32) for i, ids in enumerate(pieces)]
    return Stream(
        np.concatenate([np.asarray(ids, np.int32) for ids in pieces]), np.concatenate(numbers)
    )


def _documents(source: str, column: str) -> tuple[str, ...]:
    rows = read(source)
    if column not in rows[0]:
        near = nearest(column, rows[0])
        raise UserError(f"data.column={column!r} is not in {source}; the nearest is {near!r}")
    found = tuple(text for row in rows if (text := str(row[column])))
    if not found:
        raise UserError(f"column {column!r} of {source} holds no text; name another in data.column")
    return found


def _cut(documents: Sequence[str], characters: int) -> Texts:
    """The first `characters` of the documents, and what follows them."""
    train, held_out = [], []
    for text in documents:
        train.append(text[:characters])
        held_out.append(text[characters:])
        characters = max(0, characters - len(text))
    return Texts(tuple(filter(None, train)), tuple(filter(None, held_out)))
