"""Gradient training of the labelled part of a model, resumable, with the best epoch kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from lmlite import loop, tree
from lmlite.data.epochs import Epochs
from lmlite.data.item import Item
from lmlite.icl.score import score
from lmlite.loop import Log
from lmlite.models.lm import LM
from lmlite.run import Run, Settings, State, Trained
from lmlite.runtime import Meter
from lmlite.states import StateStore
from lmlite.step import train_step

__all__ = ["Log", "Settings", "Trained", "Training", "fit"]


def _silent(step: int, values: Mapping[str, float]) -> None:
    """The log of a run nobody follows."""


def fit(
    lm: LM,
    labels: Mapping[str, str],
    items: Sequence[Item],
    dev: Sequence[Item],
    dev_targets: Sequence[int],
    settings: Settings,
    seed: int,
    meter: Meter,
    directory: Path | None = None,
    log: Log = _silent,
    states: StateStore | None = None,
) -> Trained:
    """Trains the leaves of lm.params that `labels` does not call frozen.

    items: training examples as (query, true answer). dev: development examples with all their
    choices, dev_targets the index of the true one. directory: where checkpoints go; a run found
    there is continued, and ends bit-equal to one that was never interrupted. states: where the
    activations below the lowest trained layer are kept for runs to come.

    Raises UserError where the loss is not finite (naming the step; the last checkpoint stays).
    """
    run = Run(lm, labels, items, dev, dev_targets, settings, seed, meter, states or StateStore())
    return run.result(loop.run(Training.of(run, meter), directory, log))


@dataclasses.dataclass(frozen=True)
class Training:
    """A run as the loop drives it; see `loop.Job`."""

    run: Run
    epochs: Epochs
    meter: Meter

    @classmethod
    def of(cls, run: Run, meter: Meter) -> "Training":
        """With the batches that the run's seed gives."""
        size, epochs = run.settings.batch_size, run.settings.epochs
        context = run.lm.config.max_positions
        return cls(run, Epochs(run.items, size, epochs, run.seed, context), meter)

    def start(self) -> State:
        return self.run.start()

    def finished(self, state: State) -> bool:
        return self.run.finished(state)

    def step(self, state: State) -> int:
        return self.run.steps_at(state)

    def epoch(self, state: State) -> tuple[State, dict]:
        """One pass over the training examples, then the development loss."""
        run, meter, known = self.run, self.meter, self.run.states
        # The step may reuse its arguments' buffers, and `best` may be the same arrays.
        train, opt = (jax.tree.map(jnp.copy, state[name]) for name in ("train", "opt"))
        metrics = []
        batches = self.epochs.batches(int(state["epoch"]))
        for i, batch in enumerate(batches, start=run.steps_at(state)):
            train, opt, values = train_step(
                meter, run.network, run.optimizer.rule, run.start_layer, run.gamma, train, opt,
                run.rates, run.frozen, batch, None if known is None else known[batch.origin],
                run.key(i),
            )  # fmt: skip
            metrics.append(run.checked(values, i))
        begin = sum(len(item.ids) for item in run.items)
        scores = score(
            run.lm.network, tree.merge(run.frozen, train), run.dev, run.lm.config.max_positions,
            meter, start=run.start_layer, states=None if known is None else known[begin:],
        )  # fmt: skip
        return run.after(state, train, opt, metrics, scores)
