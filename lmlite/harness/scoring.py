"""Log-probabilities of continuations by their tokens, with whether greedy decoding gives them.

n requests, C continuations.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from lmlite.arms.items import planned
from lmlite.data.item import Item
from lmlite.icl.encode import Encoded
from lmlite.icl.score import score as score_items
from lmlite.models.lm import LM
from lmlite.runtime import Meter


class Request(NamedTuple):
    """Token ids, neither of them empty."""

    context: list[int]
    continuation: list[int]


def score(lm: LM, requests: Sequence[Request], most: int, context: int) -> list[tuple[float, bool]]:
    """(log-probability, whether greedy decoding gives it) of each continuation, in their order.

    Equal contexts are computed once, and what several begin with too, in trees of at most `most`
    tokens. context: tokens that the model takes, beside learned ones.
    """
    lm = _as_labels(lm)
    order = sorted(range(len(requests)), key=lambda i: requests[i])
    same = [list(one) for _, one in groupby(order, key=lambda i: requests[i].context)]
    encoded = [
        Encoded(requests[one[0]].context, [requests[i].continuation for i in one]) for one in same
    ]
    found = [(0.0, False)] * len(requests)
    for one, values in zip(same, _values(lm, encoded, most, context), strict=True):
        for i, (logprob, missed) in zip(one, values.T, strict=True):
            found[i] = float(logprob), bool(missed == 0)
    return found


def _as_labels(lm: LM) -> LM:
    """The model as the harness's own backend scores texts: nothing is forced before them."""
    if not lm.config.cross:
        return lm
    return dataclasses.replace(lm, config=dataclasses.replace(lm.config, forced_id=None))


def _values(lm: LM, encoded: Sequence[Encoded], most: int, context: int) -> list[np.ndarray]:
    """float64[2, C] of each: log-probabilities, and tokens that greedy decoding passes by."""
    meter = Meter()
    trees, items = planned(lm, encoded, most)
    found: list[np.ndarray] = [np.empty(0)] * len(encoded)
    for chosen in _alike(items):
        own, limit = [items[t] for t in chosen], context + lm.network.standing
        sums = score_items(lm.network, lm.params, own, limit, meter, greedy=True)
        for t, values in zip(chosen, sums, strict=True):
            ends = np.cumsum([len(encoded[i].choices) for i in trees[t]])
            for i, part in zip(trees[t], np.split(values, ends[:-1], axis=-1), strict=True):
                found[i] = part
    return found


def _alike(items: Sequence[Item]) -> list[list[int]]:
    """Indices of items by length, to a power of two: rows are as long as the longest of a batch."""
    found: dict[int, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        found[max(item.extent, 256).bit_length()].append(i)
    return list(found.values())
