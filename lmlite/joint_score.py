"""What several arms on one frozen model make of the same items: scored in one compiled step.

A arms, U read positions, M targets a read, C choices, D width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lmlite import tree
from lmlite.data.item import Item
from lmlite.data.pack import Batch
from lmlite.data.rows import BATCH_TOKENS
from lmlite.icl.score import batch_logprobs, summed
from lmlite.models.network import Network
from lmlite.runtime import Meter, Program


class Constants(NamedTuple):
    """What an arm does not learn: its optimizer's rates, its own frozen leaves, its factors."""

    rates: dict
    own: dict
    factors: dict


@dataclasses.dataclass(frozen=True)
class Scorer:
    """The arms' model: `network` reads the leaves `shared` of all and, stacked, those of each.

    context: the model's positions.
    """

    network: Network
    shared: dict
    constants: Constants
    context: int

    def __call__(
        self,
        train: Any,
        items: Sequence[Item],
        meter: Meter,
        start: int = 0,
        known: Callable[[Batch], np.ndarray | None] = lambda batch: None,
        greedy: bool = False,
    ) -> list[list[np.ndarray]]:
        """Summed log-probabilities float64[C] of each item's choices, arm by arm.

        train: what the arms learned, stacked. known: float32[A, R, T, D] entering layer `start`.
        greedy: float64[2, C], see `lmlite.icl.score`.
        A batch has as many tokens as one of a single arm, those of all arms counted.
        """
        A = len(jax.tree.leaves(train)[0])
        program = _greedy if greedy else _logprobs

        def logprobs(batch, _):
            return program(
                meter, self.network, start, train, self.constants, self.shared, batch, known(batch)
            )

        found = summed(logprobs, items, self.context, tokens=max(1, BATCH_TOKENS // A))
        return [[scores[a] for scores in found] for a in range(A)]


def whole(shared, constants: Constants, train) -> dict:
    """One arm's parameters as the network reads them."""
    flat = tree.flatten(train)
    scaled = {path: flat[path] * factor for path, factor in constants.factors.items()}
    return tree.merge(shared, constants.own, train, tree.unflatten(scaled))


def _of_all(network, start, train, constants, shared, batch, known, greedy=False):
    """float32[A, U, M], or [A, 2, U, M] where `greedy`: one batch as every arm sees it."""

    def one(train, constants, known):
        params = whole(shared, constants, train)
        return batch_logprobs(network, start, params, batch, states=known, greedy=greedy)

    return jax.vmap(one)(train, constants, known)


_logprobs = Program(_of_all, static=2)
_greedy = Program(partial(_of_all, greedy=True), static=2)
