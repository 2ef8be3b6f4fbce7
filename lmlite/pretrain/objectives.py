"""What a model is trained to predict: rows of inputs and targets from windows of a token stream.

R rows, W tokens of a window, T inputs, S source tokens, U targets a row. An objective is made of
numpy: equal windows and generators give equal rows. A window's document is -1 where the stream has
ended; nothing is predicted there.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np


class Inputs(NamedTuple):
    """Tokens and where they stand: int32[R, T] each; segment 0 is padding."""

    ids: np.ndarray
    position: np.ndarray
    segment: np.ndarray


class Rows(NamedTuple):
    """reads: int32[R, U], the places whose states predict targets int32[R, U]; weights: float32
    [R, U]. source: what an encoder reads, None without one.
    """

    inputs: Inputs
    reads: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    source: Inputs | None = None


@dataclasses.dataclass(frozen=True)
class Causal:
    """Every token from those before it in its document; a row of `length` may hold several."""

    kind: ClassVar[str] = "causal"
    length: int

    @property
    def window(self) -> int:
        """Tokens of the corpus in a row: one more than it predicts."""
        return self.length + 1

    def starts(self, n: int) -> np.ndarray:
        """Windows that predict each of n tokens but the first once."""
        return np.arange(0, max(n - 1, 1), self.length)

    def rows(self, ids: np.ndarray, document: np.ndarray, draw: np.random.Generator) -> Rows:
        segment = np.where(document < 0, 0, document - document[:, :1] + 1)
        place = np.broadcast_to(np.arange(self.window), ids.shape)
        begins = np.diff(segment, axis=1, prepend=0) != 0
        position = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
        weights = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] > 0)
        inputs = _inputs(ids[:, :-1], position[:, :-1], segment[:, :-1])
        return Rows(inputs, _int(place[:, :-1]), _int(ids[:, 1:]), weights.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Masked:
    """BERT's masked tokens (Devlin et al. 2019, arXiv:1810.04805, section 3.1): `rate` of them are
    to be predicted; of these 80 % are replaced by the mask, 10 % by a random token, 10 % stay.

    A row is start, window, end; it may cross documents, as RoBERTa's FULL-SENTENCES do
    (arXiv:1907.11692). special: ids below it are special; they are neither masked nor drawn.
    """

    kind: ClassVar[str] = "masked"
    length: int
    rate: float
    vocab_size: int
    special: int
    start_id: int
    end_id: int
    mask_id: int

    @property
    def window(self) -> int:
        """Tokens of the corpus in a row, between those that start and end a text."""
        return self.length - 2

    def starts(self, n: int) -> np.ndarray:
        """Windows that hold every token; the last may overlap the one before."""
        return _covering(n, self.window)

    def rows(self, ids: np.ndarray, document: np.ndarray, draw: np.random.Generator) -> Rows:
        R, W = ids.shape
        n = max(1, round(self.rate * W))
        candidate = (ids >= self.special) & (document >= 0)
        order = np.argsort(np.where(candidate, draw.random((R, W)), 2.0), axis=1)
        chosen = np.sort(order[:, :n], axis=1)
        true = np.take_along_axis(ids, chosen, axis=1)
        how = draw.random((R, n))
        other = draw.integers(self.special, self.vocab_size, (R, n))
        shown = np.where(how < 0.8, self.mask_id, np.where(how < 0.9, other, true))
        weights = np.take_along_axis(candidate, chosen, axis=1)
        corrupted = ids.copy()
        np.put_along_axis(corrupted, chosen, np.where(weights, shown, true), axis=1)
        ends = np.full((R, 1), self.start_id), np.full((R, 1), self.end_id)
        inputs = _whole(np.concatenate([ends[0], corrupted, ends[1]], axis=1))
        return Rows(inputs, _int(chosen + 1), _int(true), weights.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Spans:
    """T5's span corruption (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4): `rate` of the
    tokens, in spans of `span` on average, are each replaced by a sentinel in the source; the target
    is every sentinel with the tokens it stands for. Both end in end_id.

    length: of the source, at most. sentinels: their ids, the first for the first span; at least
    `spans` of them. Rows may cross documents.
    """

    kind: ClassVar[str] = "spans"
    length: int
    rate: float
    span: float
    sentinels: tuple[int, ...]
    start_id: int
    end_id: int

    @property
    def window(self) -> int:
        """Tokens of the corpus that make a row of `length` with its spans replaced."""
        return span_counts(self.length, self.rate, self.span)[0]

    def starts(self, n: int) -> np.ndarray:
        """Windows that hold every token; the last may overlap the one before."""
        return _covering(n, self.window)

    def rows(self, ids: np.ndarray, document: np.ndarray, draw: np.random.Generator) -> Rows:
        window, noise, spans = span_counts(self.length, self.rate, self.span)
        pairs = []
        for row in ids:
            kept = _lengths(window - noise, spans, draw)
            lost = _lengths(noise, spans, draw)
            pairs.append(self._corrupted(row, kept, lost))
        source, target = (np.stack(part) for part in zip(*pairs, strict=True))
        given = np.concatenate([np.full((len(ids), 1), self.start_id), target[:, :-1]], axis=1)
        reads = np.broadcast_to(np.arange(target.shape[1]), target.shape)
        weights = np.broadcast_to(document[:, :1] >= 0, target.shape).astype(np.float32)
        return Rows(_whole(given), _int(reads), _int(target), weights, _whole(source))

    def _corrupted(self, row, kept, lost) -> tuple[np.ndarray, np.ndarray]:
        """(source, target) of one window whose pieces alternate: `kept` tokens, `lost` tokens."""
        ends = np.cumsum(np.stack([kept, lost], axis=1).ravel())
        pieces = np.split(row, ends[:-1])
        source, target = [], []
        for sentinel, whole, gone in zip(self.sentinels, pieces[::2], pieces[1::2], strict=False):
            source += [*whole, sentinel]
            target += [sentinel, *gone]
        return np.array([*source, self.end_id]), np.array([*target, self.end_id])


Objective = Causal | Masked | Spans


def span_counts(length: int, rate: float, span: float) -> tuple[int, int, int]:
    """(window, lost tokens, spans): the longest window whose source has at most `length` tokens."""

    def counts(window):
        noise = min(max(round(window * rate), 1), window - 1)
        return window, noise, min(max(round(noise / span), 1), noise, window - noise)

    def source(window):
        _, noise, spans = counts(window)
        return window - noise + spans + 1

    window = 2
    while source(window + 1) <= length:
        window += 1
    return counts(window)


def _lengths(items: int, parts: int, draw: np.random.Generator) -> np.ndarray:
    """int[parts], each at least 1, that sum to `items`: every such split is equally likely."""
    cuts = 1 + np.sort(draw.permutation(items - 1)[: parts - 1])
    return np.diff(cuts, prepend=0, append=items)


def _covering(n: int, window: int) -> np.ndarray:
    return np.unique([*range(0, max(n - window, 0), window), max(n - window, 0)])


def _whole(ids: np.ndarray) -> Inputs:
    """One sequence a row."""
    return _inputs(ids, np.broadcast_to(np.arange(ids.shape[1]), ids.shape), np.ones_like(ids))


def _inputs(*arrays) -> Inputs:
    return Inputs(*map(_int, arrays))


def _int(array) -> np.ndarray:
    return np.ascontiguousarray(array, np.int32)
