"""Gradient training of the labelled part of a model, resumable, with the best epoch kept.

R rows, T tokens a row, U read positions, M targets a read, D width.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import loop, tree
from lmlite.data.epochs import Epochs
from lmlite.data.pack import Batch, Item
from lmlite.errors import UserError
from lmlite.icl.score import batch_logprobs, score
from lmlite.loop import Log
from lmlite.models.lm import LM, Network
from lmlite.optim import Optimizer
from lmlite.runtime import Meter, Program, stream
from lmlite.states import first_trained_layer, frozen_states


@dataclasses.dataclass(frozen=True)
class Settings:
    """epochs; batch_size in examples; patience: epochs without a better development loss before the
    stop, 0 for none; optim: the fields of `Optimizer` other than steps and labels.
    """

    epochs: int
    batch_size: int
    patience: int
    optim: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """params: the whole adapted tree at its best epoch. steps: batches seen. history: one dict an
    epoch (epoch, loss, dev_loss, grad_norm).
    """

    params: dict
    steps: int
    history: list[dict[str, float]]


def loss(logprobs: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the labelled tokens: [U, M], [U, M] -> scalar."""
    return -jnp.sum(logprobs * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def _step(network: Network, optimizer: Optimizer, start, train, opt, frozen, batch, states, key):
    """One batch. Differentiates by `train` alone, so that nothing below it has a gradient."""

    def objective(train):
        params = tree.merge(frozen, train)
        rngs = {"dropout": key}
        logprobs = batch_logprobs(network, start, params, batch, states=states, rngs=rngs)
        value = loss(logprobs, batch.weights)
        return value + network.penalty(params) if network.penalty else value

    return optimizer.step(objective, train, opt)


_train_step = Program(_step, static=3, donate=(3, 4))


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
    log: Log = lambda step, values: None,
) -> Trained:
    """Trains the leaves of lm.params that `labels` does not call frozen.

    items: training examples as (query, true answer). dev: development examples with all their
    choices, dev_targets the index of the true one. directory: where checkpoints go; a run found
    there is continued, and ends bit-equal to one that was never interrupted.

    Raises UserError where the loss is not finite (naming the step; the last checkpoint stays).
    """
    run = _Run(lm, labels, items, dev, dev_targets, settings, seed, meter)
    return run.result(loop.run(run, directory, log))


class _Run:
    """The constants of one training run; its state is a pytree that goes in and out of `epoch`."""

    def __init__(self, lm, labels, items, dev, dev_targets, settings, seed, meter):
        self.lm, self.dev, self.dev_targets = lm, dev, dev_targets
        self.settings, self.seed, self.meter = settings, seed, meter
        self.train, self.frozen = tree.split(lm.params, labels)
        if not items:
            raise UserError("there are no training examples; raise the number of labelled examples")
        self.items = [*items, *dev]
        self.examples = len(items)
        self.cut = first_trained_layer(labels, lm.config.layers)
        self.states = frozen_states(lm, self.items, self.cut, meter)
        self.start_layer = 0 if self.states is None else self.cut
        size, context = settings.batch_size, lm.config.max_positions
        self.epochs = Epochs(items, size, settings.epochs, seed, context)
        self.steps_per_epoch = self.epochs.steps
        self.optimizer = Optimizer(
            steps=max(1, settings.epochs * self.steps_per_epoch // settings.optim["accumulate"]),
            labels=tuple((path, labels[path]) for path in tree.flatten(self.train)),
            **settings.optim,
        )

    def start(self) -> dict:
        """State before the first epoch."""
        return {
            "train": self.train,
            "opt": self.optimizer.build().init(self.train),
            "best": self.train,
            "history": np.full((self.settings.epochs, 3), np.nan),
            "epoch": np.asarray(0),
            "best_epoch": np.asarray(0),
        }

    def finished(self, state: dict) -> bool:
        epoch, best = int(state["epoch"]), int(state["best_epoch"])
        patience = self.settings.patience
        waited = bool(patience and self.dev) and epoch - best >= patience
        return epoch >= self.settings.epochs or waited

    def step(self, state: dict) -> int:
        """Batches seen so far."""
        return int(state["epoch"]) * self.steps_per_epoch

    def epoch(self, state: dict) -> tuple[dict, dict[str, float]]:
        """One pass over the training examples, then the development loss."""
        epoch = int(state["epoch"])
        # The step may reuse its arguments' buffers, and `best` may be the same arrays.
        train = jax.tree.map(jnp.copy, state["train"])
        opt, metrics = jax.tree.map(jnp.copy, state["opt"]), []
        for i, batch in enumerate(self.epochs.batches(epoch)):
            step = epoch * self.steps_per_epoch + i
            train, opt, values = _train_step(
                self.meter, self.lm.network, self.optimizer, self.start_layer, train, opt,
                self.frozen, batch, self._known(batch), stream(self.seed, "dropout", step),
            )  # fmt: skip
            metrics.append(loop.finite(values, step, self.settings.optim["learning_rate"]))
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        dev_loss = self._dev_loss(train)
        history = np.array(state["history"])
        history[epoch] = means["loss"], means["grad_norm"], dev_loss
        past = history[:epoch, 2]
        better = not self.dev or epoch == 0 or dev_loss < np.nanmin(past)
        return {
            "train": train,
            "opt": opt,
            "best": train if better else state["best"],
            "history": history,
            "epoch": np.asarray(epoch + 1),
            "best_epoch": np.asarray(epoch + 1) if better else state["best_epoch"],
        }, {**means, **({"dev_loss": dev_loss} if self.dev else {})}

    def result(self, state: dict) -> Trained:
        rows = np.asarray(state["history"])[: int(state["epoch"])]
        names = "loss", "grad_norm", "dev_loss"
        history = [
            {"epoch": i, **dict(zip(names, map(float, row), strict=True))}
            for i, row in enumerate(rows, start=1)
        ]
        params = tree.merge(self.frozen, state["best"])
        return Trained(params, self.step(state), history)

    def _known(self, batch: Batch):
        return None if self.states is None else self.states[batch.origin]

    def _dev_loss(self, train) -> float:
        """Mean negative log-probability of the true choice among the choices; nan without a set."""
        if not self.dev:
            return math.nan
        params = tree.merge(self.frozen, train)
        begin = sum(len(item.ids) for item in self.items[: self.examples])
        states = None if self.states is None else self.states[begin:]
        scores = score(
            self.lm.network, params, self.dev, self.lm.config.max_positions, self.meter,
            start=self.start_layer, states=states,
        )  # fmt: skip
        pairs = zip(scores, self.dev_targets, strict=True)
        chosen = [s[t] - np.logaddexp.reduce(s) for s, t in pairs]
        return -float(np.mean(chosen))
