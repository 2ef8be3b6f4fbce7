"""Pretrained word vectors: word2vec's text and binary files (Mikolov et al. 2013) and GloVe's text
(Pennington et al. 2014), and a token table that starts from them.

n words, D width, V vocabulary.
"""

import gzip
import io
from pathlib import Path
from typing import IO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer


class WordVectors(NamedTuple):
    """words: {word: its row}, of a repeated word the first; vectors: float32[n, D]."""

    words: dict[str, int]
    vectors: np.ndarray


def read(path: str | Path) -> WordVectors:
    """The vectors in a file, which may be gzipped; which of the three formats it has is seen in it.

    Both of word2vec's begin with a line 'n D'; GloVe's has no such line. Words that are not UTF-8
    (word2vec may cut one short) get U+FFFD for what is broken.
    Raises UserError for a file that cannot be read or holds something else.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(Path(path).expanduser(), "rb") as file:
            # A gzip stream has no peek of its own size, so both kinds are buffered here.
            return _parse(io.BufferedReader(file, 1 << 20), str(path))
    except (OSError, EOFError) as error:
        raise UserError(f"word_vectors={path} cannot be read: {error}") from error


def fill(table: jax.Array, tokenizer: Tokenizer, found: WordVectors) -> jax.Array:
    """`table` [V, D] with the vectors of the tokens that are words, as written or in small letters.

    The other rows keep their direction and get the found vectors' spread.
    Raises UserError where the widths differ or no token is among the words.
    """
    if found.vectors.shape[1] != table.shape[1]:
        raise UserError(
            f"the word vectors have {found.vectors.shape[1]} elements and the model's embedding "
            f"{table.shape[1]}; set the model's embedding_size to {found.vectors.shape[1]}"
        )
    pairs = []
    for i in range(tokenizer.vocab_size):
        word = tokenizer.decode([i]).strip()
        row = found.words.get(word, found.words.get(word.lower()))
        if row is not None:
            pairs.append((i, row))
    if not pairs:
        raise UserError("no token is among the words of word_vectors; use tokenizer.kind=words")
    ids, rows = (np.array(column) for column in zip(*pairs, strict=True))
    chosen = found.vectors[rows]
    table = table * (chosen.std() / jnp.std(table))
    return table.at[ids].set(chosen)


def _parse(file: IO[bytes], path: str) -> WordVectors:
    first = file.readline()
    header = first.split()
    if len(header) == 2 and all(field.isdigit() for field in header):
        n, width = map(int, header)
        if width and _is_text(file.peek(1 << 20), width):
            lines = file.readlines()
        else:
            return _binary(file, n, width, path)
    else:
        n, width = None, len(header) - 1
        lines = [first, *file.readlines()]
    words, vectors = _lines(lines, width, path)
    if n is not None and len(vectors) != n:
        raise UserError(f"{path} holds {len(vectors)} words and says {n}; fetch it again")
    return _collected(words, np.array(vectors, np.float32), path)


def _is_text(start: bytes, width: int) -> bool:
    """Whether a word and `width` numbers stand in the first line."""
    fields = start.partition(b"\n")[0].split()
    try:
        return len(fields) > width and bool([float(field) for field in fields[-width:]])
    except ValueError:
        return False


def _lines(lines: list[bytes], width: int, path: str) -> tuple[list[str], list[np.ndarray]]:
    """Numbers are taken from the right: some words of GloVe's files hold spaces."""
    words, vectors = [], []
    for number, line in enumerate(lines, 1):
        fields = line.rstrip().rsplit(b" ", width)
        try:
            if len(fields) != width + 1 or not width:
                raise ValueError
            vectors.append(np.array(fields[1:], np.float32))
        except ValueError as error:
            raise UserError(
                f"{path}: entry {number} is not a word and {width} numbers; "
                "is it word2vec's or GloVe's file?"
            ) from error
        words.append(_word(fields[0]))
    return words, vectors


def _binary(file: IO[bytes], n: int, width: int, path: str) -> WordVectors:
    """n times: the word, a space, `width` little-endian floats and, by some writers, a newline."""
    words, vectors = [], np.empty((n, width), np.float32)
    for i in range(n):
        word = bytearray()
        while (character := file.read(1)) not in (b" ", b""):
            word += character
        data = file.read(4 * width)
        if len(data) < 4 * width or not word.strip():
            raise UserError(f"{path} ends at word {i} of {n}; fetch it again")
        words.append(_word(bytes(word).lstrip(b"\n")))
        vectors[i] = np.frombuffer(data, "<f4")
    return _collected(words, vectors, path)


def _collected(words: list[str], vectors: np.ndarray, path: str) -> WordVectors:
    if not len(words):
        raise UserError(f"{path} holds no word vectors")
    rows: dict[str, int] = {}
    for row, word in enumerate(words):
        rows.setdefault(word, row)
    return WordVectors(rows, vectors)


def _word(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
