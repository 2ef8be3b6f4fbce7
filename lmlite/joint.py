"""Several runs on one frozen model in one compiled step: what trains is stacked, the rest shared.

A arms, R rows, T tokens a row, U read positions, M targets a read, C choices, D width.

The step is `jax.vmap` of one arm's step over its parameters, optimizer state, rates and batch, with
the shared weights un-batched: each of their products runs once, on the rows of all arms.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import tree
from lmlite.checkpoint import Checkpoints
from lmlite.data.epochs import JointEpochs
from lmlite.data.pack import BATCH_TOKENS
from lmlite.errors import UserError
from lmlite.icl.score import batch_logprobs, summed
from lmlite.models.lm import Network
from lmlite.run import Run, State, Trained
from lmlite.runtime import Meter, Program
from lmlite.stacking import shared, stack, unstack
from lmlite.step import objective, trained_network, update
from lmlite.train import Log


@dataclasses.dataclass(frozen=True)
class Member:
    """One arm of a joint fit.

    factors: {path: f}, a leaf times f is what the network reads. directory, log: as for `fit`.
    """

    run: Run
    factors: Mapping[str, float]
    directory: Path | None
    log: Log


class Constants(NamedTuple):
    """What an arm does not learn: its optimizer's rates, its own frozen leaves, its factors."""

    rates: dict
    own: dict
    factors: dict


def fit_jointly(
    network: Network, members: Sequence[Member], meter: Meter
) -> list[Trained | UserError]:
    """What `fit` gives each member alone, to float32 rounding; a member's UserError is its own.

    network: reads the parameters of any member, filled up with zeros to the largest shapes. The
    members have the same items, epochs, batch size, trained layers and optimizer rule. Checkpoints
    are those of `fit`: a member found further than the others waits for them.
    """
    stores = [Checkpoints(m.directory) if m.directory else None for m in members]
    states = [m.run.start() for m in members]
    states = [(c and c.restore(s)) or s for c, s in zip(stores, states, strict=True)]
    errors: dict[int, UserError] = {}
    together = None
    while turn := _turn(members, states, errors):
        together = together or _Together(network, members, meter)
        outcomes = together.epoch(states, int(states[turn[0]]["epoch"]))
        for a in turn:
            try:
                states[a] = _advanced(members[a], states[a], outcomes[a], stores[a])
            except UserError as error:
                errors[a] = error
    for store in filter(None, stores):
        store.close()
    return [errors.get(a) or m.run.result(states[a]) for a, m in enumerate(members)]


def _turn(members, states, errors) -> list[int]:
    """The arms whose epoch is next: those least far among the ones that are not finished.

    The others run along and what they do is thrown away: leaving them out would be another program
    to compile.
    """
    runs = enumerate(member.run for member in members)
    going = [a for a, run in runs if a not in errors and not run.finished(states[a])]
    least = min((int(states[a]["epoch"]) for a in going), default=0)
    return [a for a in going if int(states[a]["epoch"]) == least]


def _advanced(member: Member, state: State, outcome, store: Checkpoints | None) -> State:
    run, (train, opt, metrics, scores) = member.run, outcome
    metrics = [run.checked(values, i) for i, values in enumerate(metrics, run.steps_at(state))]
    state, values = run.after(state, train, opt, metrics, scores)
    member.log(run.steps_at(state), values)
    if store:
        store.save(int(state["epoch"]), state)
    return state


class _Together:
    """What stays the same during the joint steps of some runs."""

    def __init__(self, network: Network, members: Sequence[Member], meter: Meter):
        self.runs, self.meter = [member.run for member in members], meter
        self.first = first = self.runs[0]
        self.network = network
        self.trained_network = trained_network(network, first.settings.remat)
        self.shared, own = shared([run.frozen for run in self.runs])
        self.constants = Constants(
            stack([run.rates for run in self.runs]),
            stack(own),
            stack([{path: np.float32(f) for path, f in m.factors.items()} for m in members]),
        )
        self.context = first.lm.config.max_positions
        size, epochs = first.settings.batch_size, first.settings.epochs
        seeds = [run.seed for run in self.runs]
        self.epochs = JointEpochs(first.items, size, epochs, seeds, self.context)

    def epoch(self, states: Sequence[State], epoch: int) -> list[tuple]:
        """Arm by arm (train, opt, metrics of its steps, scores of the development items)."""
        first = self.first
        train, opt = (stack([state[name] for state in states]) for name in ("train", "opt"))
        metrics = []
        for i, batch in enumerate(self.epochs.batches(epoch), epoch * first.steps_per_epoch):
            train, opt, values = joint_step(
                self.meter, self.trained_network, first.optimizer.rule, first.start_layer,
                first.gamma, train, opt, self.constants, self.shared, batch,
                self._known(batch.origin), jnp.stack([run.key(i) for run in self.runs]),
            )  # fmt: skip
            metrics.append({name: np.asarray(value) for name, value in values.items()})
        told = [
            [{name: v[a] for name, v in m.items()} for m in metrics] for a in range(len(states))
        ]
        trains = unstack(train, [state["train"] for state in states])
        opts = unstack(opt, [state["opt"] for state in states])
        return list(zip(trains, opts, told, self._scores(train), strict=True))

    def _known(self, origin: np.ndarray) -> np.ndarray | None:
        """float32[A, R, T, D]: each arm's states of its batch; origin: int32[A, R, T]."""
        if self.first.states is None:
            return None
        pairs = zip(self.runs, origin, strict=True)
        return np.stack([run.states[tokens] for run, tokens in pairs])

    def _scores(self, train) -> list[list[np.ndarray]]:
        """[C] of each development item, arm by arm."""
        first, A = self.first, len(self.runs)
        offset = sum(len(item.ids) for item in first.items)

        def logprobs(batch, _):
            known = self._known(np.stack([batch.origin + offset] * A))
            return _joint_logprobs(
                self.meter, self.network, first.start_layer, train, self.constants, self.shared,
                batch, known,
            )  # fmt: skip

        tokens = max(1, BATCH_TOKENS // A)  # the product of a weight sees those of all arms
        found = summed(logprobs, first.dev, self.context, tokens=tokens)
        return [[scores[a] for scores in found] for a in range(A)]


def _whole(shared, constants: Constants, train) -> dict:
    """One arm's parameters as the network reads them."""
    flat = tree.flatten(train)
    scaled = {path: flat[path] * factor for path, factor in constants.factors.items()}
    return tree.merge(shared, constants.own, train, tree.unflatten(scaled))


def _step(network, rule, start, gamma, train, opt, constants, shared, batch, states, keys):
    """One batch of every arm: (train, opt, metrics), all [A, ...]."""

    def one(train, opt, constants, batch, states, key):
        def value(train):
            params = _whole(shared, constants, train)
            return objective(network, start, gamma, params, batch, states, key)

        return update(rule, constants.rates, value, train, opt)

    return jax.vmap(one)(train, opt, constants, batch, states, keys)


def _logprobs(network, start, train, constants, shared, batch, known):
    """float32[A, U, M]: one batch as every arm sees it."""

    def one(train, constants, known):
        params = _whole(shared, constants, train)
        return batch_logprobs(network, start, params, batch, states=known)

    return jax.vmap(one)(train, constants, known)


joint_step = Program(_step, static=4, donate=(4, 5))
_joint_logprobs = Program(_logprobs, static=2)
