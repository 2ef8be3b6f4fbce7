"""Which labelled examples a prompt shows, and in which order.

k demonstrations.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lmlite.data.splits import sample
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.prompts import prompt
from lmlite.icl.retrieve import embedded, nearest, spread_out
from lmlite.models.lm import LM
from lmlite.runtime import Meter

CHOOSERS = ("balanced", "random", "first", "diverse", "nearest")
ORDERS = ("drawn", "curriculum", "best", "similar")
# (demonstrations, asked) -> accuracy and mean log-likelihood of the right answers.
Score = Callable[[Sequence[Example], Sequence[Example]], tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Same:
    """The prompts of queries behind the same demonstrations."""

    lm: LM
    task: Task
    demonstrations: tuple[Example, ...] = ()

    def __call__(self, examples: Sequence[Example], meter: Meter | None = None) -> list[str]:
        """meter: of what it takes, which is nothing here."""
        return [prompt(self.lm, self.task, self.demonstrations, e.prompt) for e in examples]


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The prompts of queries behind the k examples of `pool` that are nearest to each.

    order: 'similar' puts the nearest last; otherwise they stand in the order of the pool, so that
    the prompts of many queries begin alike. A query is never shown itself, nor its like: what has
    the same prompt. known: float32[n, D], the embeddings of the pool by `retriever`.
    """

    lm: LM
    task: Task
    pool: tuple[Example, ...]
    k: int
    retriever: str
    diversity: float
    order: str
    known: np.ndarray

    @property
    def stored_bytes(self) -> int:
        """Of the pool's texts and embeddings, which answering needs."""
        texts = sum(len((e.prompt + e.answer).encode()) for e in self.pool)
        return self.known.nbytes + texts

    def __call__(self, examples: Sequence[Example], meter: Meter | None = None) -> list[str]:
        """meter: told what finding takes."""
        if not examples:
            return []
        queries = embedded(self.retriever, [e.prompt for e in examples], meter)
        alike = max(Counter(e.prompt for e in self.pool).values(), default=0)
        most = min(self.k + alike, len(self.pool))
        rows = nearest(queries, self.known, most, self.diversity)
        return [prompt(self.lm, self.task, self._shown(e, r), e.prompt)
                for e, r in zip(examples, rows, strict=True)]  # fmt: skip

    def _shown(self, example: Example, row: np.ndarray) -> list[Example]:
        found = [int(i) for i in row if self.pool[i].prompt != example.prompt][: self.k]
        return [self.pool[i] for i in (found[::-1] if self.order == "similar" else sorted(found))]


def chosen(
    choose: str, pool: Sequence[Example], k: int, draw: int, retriever: str, meter: Meter
) -> tuple[Example, ...]:
    """k examples of the pool, the same for every query; meter: told what choosing takes."""
    if not k:
        return ()
    if choose == "first":
        return tuple(pool[:k])
    if choose == "diverse":
        found = spread_out(embedded(retriever, [e.prompt for e in pool], meter), k, draw)
        return tuple(pool[i] for i in found)
    return sample(pool, k, draw, balanced=choose == "balanced")


def arranged(
    order: str,
    shown: tuple[Example, ...],
    number: int,
    orders: int,
    dev: tuple[Example, ...],
    draw: int,
    score: Score,
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The demonstrations in order, and the further examples whose labels that took.

    number: which permutation of those drawn, 0 for none. Raises UserError for 'best' without
    development examples.
    """
    if order == "curriculum":
        return tuple(sorted(shown, key=lambda e: -score((), [e])[1])), ()
    if order == "best" and len(shown) > 1:
        if not dev:
            raise UserError("order='best' needs development examples; raise dev_fraction")
        tried = [_permuted(shown, draw, i) for i in range(orders)]
        return max(tried, key=lambda demonstrations: score(demonstrations, dev)), dev
    return _permuted(shown, draw, number), ()


def _permuted(shown: tuple[Example, ...], draw: int, number: int) -> tuple[Example, ...]:
    if not number:
        return shown
    places = np.random.default_rng([draw, number]).permutation(len(shown))
    return tuple(shown[i] for i in places)
