"""Several runs on one frozen model in one compiled step: what trains is stacked, the rest shared.

A arms, R rows, T tokens a row, C choices, D width.

The step is `jax.vmap` of one arm's step over its parameters, optimizer state, rates and batch, with
the shared weights un-batched: each of their products runs once, on the rows of all arms.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import loop, tree
from lmlite.checkpoint import Checkpoints
from lmlite.data.epochs import JointEpochs
from lmlite.data.item import Item
from lmlite.errors import UserError
from lmlite.joint_score import Constants, Scorer, whole
from lmlite.models.network import Network
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


def fit_jointly(
    network: Network, members: Sequence[Member], meter: Meter
) -> list[Trained | UserError]:
    """What `fit` gives each member alone, to float32 rounding; a member's UserError is its own.

    network: reads the parameters of any member, filled up with zeros to the largest shapes. The
    members have the same items, epochs, batch size, trained layers and optimizer rule. Checkpoints
    are those of `fit`: a member found further than the others waits for them. An epoch's cost is
    shared by those whose turn it is, so that the checkpoints have in all what all have cost.
    """
    stores = [Checkpoints(m.directory) if m.directory else None for m in members]
    pairs = zip(members, stores, strict=True)
    states = [loop.begun(m.run.start(), store, meter) for m, store in pairs]
    errors: dict[int, UserError] = {}
    together, clock = None, loop.Clock(meter)
    while turn := _turn(members, states, errors):
        together = together or _Together(network, members, meter)
        outcomes = together.epoch(states, int(states[turn[0]]["epoch"]))
        cost = clock.lap() / len(turn)
        for a in turn:
            try:
                states[a] = _advanced(members[a], states[a], outcomes[a], stores[a], cost)
            except UserError as error:
                errors[a] = error
    for store in filter(None, stores):
        store.close()
    return [errors.get(a) or m.run.result(states[a]) for a, m in enumerate(members)]


def answering(
    network: Network,
    members: Sequence[Member],
    trained: Sequence[Trained | UserError],
    greedy: bool = False,
) -> Callable[[Sequence[Item], Meter], list[list[np.ndarray]]]:
    """(items, meter) -> [C] an item, arm by arm: what each member has learned says of the items.

    To float32 rounding what each says alone, computed in one compiled step. Members that have
    learned nothing take no part but in the shapes, which are those that `network` reads. greedy:
    [2, C] an item, see `lmlite.icl.score`.
    """
    able = [a for a, found in enumerate(trained) if isinstance(found, Trained)]
    scorer = _scorer(network, members)
    learned = [_learned(*pair) for pair in zip(members, trained, strict=True)]
    own = jax.tree.map(lambda leaf: leaf[able], (stack(learned), scorer.constants))
    return functools.partial(dataclasses.replace(scorer, constants=own[1]), own[0], greedy=greedy)


def _learned(member: Member, found: Trained | UserError) -> dict:
    """The leaves that train, as they became."""
    if isinstance(found, UserError):
        return member.run.train
    leaves = tree.flatten(found.params)
    return tree.unflatten({path: leaves[path] for path in tree.flatten(member.run.train)})


def _scorer(network: Network, members: Sequence[Member]) -> Scorer:
    same, own = shared([m.run.frozen for m in members])
    factors = [{path: np.float32(f) for path, f in m.factors.items()} for m in members]
    constants = Constants(stack([m.run.rates for m in members]), stack(own), stack(factors))
    return Scorer(network, same, constants, members[0].run.lm.config.max_positions)


def _turn(members, states, errors) -> list[int]:
    """The arms whose epoch is next: those least far among the ones that are not finished.

    The others run along and what they do is thrown away: leaving them out would be another program
    to compile.
    """
    runs = enumerate(member.run for member in members)
    going = [a for a, run in runs if a not in errors and not run.finished(states[a])]
    least = min((int(states[a]["epoch"]) for a in going), default=0)
    return [a for a in going if int(states[a]["epoch"]) == least]


def _advanced(member: Member, state: State, outcome, store: Checkpoints | None, cost) -> State:
    run, (train, opt, metrics, scores) = member.run, outcome
    metrics = [run.checked(values, i) for i, values in enumerate(metrics, run.steps_at(state))]
    after, values = run.after(state, train, opt, metrics, scores)
    state = {**after, loop.COST: state[loop.COST] + cost}
    member.log(run.steps_at(state), values)
    if store:
        store.save(int(state["epoch"]), state)
    return state


class _Together:
    """What stays the same during the joint steps of some runs."""

    def __init__(self, network: Network, members: Sequence[Member], meter: Meter):
        self.runs, self.meter = [member.run for member in members], meter
        self.first = first = self.runs[0]
        self.trained_network = trained_network(network, first.settings.remat)
        self.scorer = _scorer(network, members)
        size, epochs = first.settings.batch_size, first.settings.epochs
        seeds = [run.seed for run in self.runs]
        self.epochs = JointEpochs(first.items, size, epochs, seeds, self.scorer.context)

    def epoch(self, states: Sequence[State], epoch: int) -> list[tuple]:
        """Arm by arm (train, opt, metrics of its steps, scores of the development items)."""
        first, scorer = self.first, self.scorer
        train, opt = (stack([state[name] for state in states]) for name in ("train", "opt"))
        metrics = []
        for i, batch in enumerate(self.epochs.batches(epoch), epoch * first.steps_per_epoch):
            train, opt, values = joint_step(
                self.meter, self.trained_network, first.optimizer.rule, first.start_layer,
                first.gamma, train, opt, scorer.constants, scorer.shared, batch,
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

        def known(batch):
            return self._known(np.stack([batch.origin + offset] * A))

        return self.scorer(train, first.dev, self.meter, first.start_layer, known)


def _step(network, rule, start, gamma, train, opt, constants, shared, batch, states, keys):
    """One batch of every arm: (train, opt, metrics), all [A, ...]."""

    def one(train, opt, constants, batch, states, key):
        def value(train):
            params = whole(shared, constants, train)
            return objective(network, start, gamma, params, batch, states, key)

        return update(rule, constants.rates, value, train, opt)

    return jax.vmap(one)(train, opt, constants, batch, states, keys)


joint_step = Program(_step, static=4, donate=(4, 5))
