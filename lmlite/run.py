"""One training run: its settings, what stays the same, and its state from epoch to epoch.

C choices, D width.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import loop, tree
from lmlite.errors import UserError
from lmlite.optim import Optimizer, check
from lmlite.runtime import stream
from lmlite.states import first_trained_layer
from lmlite.step import trained_network

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """epochs; batch_size in examples; patience: epochs without a better development loss before the
    stop, 0 for none; optim: the fields of `Optimizer` other than steps and labels; remat: 'block'
    keeps one activation a block for the backward pass and recomputes the others, 'none' keeps all;
    focal_gamma: of the focal loss, 0 for none.
    """

    epochs: int
    batch_size: int
    patience: int
    optim: Mapping[str, Any]
    remat: str = "none"
    focal_gamma: float = 0.0

    def __post_init__(self):
        if self.batch_size < 1 or self.epochs < 0:
            raise UserError(
                f"train.batch_size={self.batch_size} must be at least 1, and "
                f"train.epochs={self.epochs} at least 0"
            )
        if self.focal_gamma < 0 or self.patience < 0 or self.patience != int(self.patience):
            raise UserError(
                f"train.patience={self.patience} must be a whole number of epochs, 0 for none, and "
                f"train.focal_gamma={self.focal_gamma} at least 0"
            )
        check(self.optim)


@dataclasses.dataclass(frozen=True)
class Trained:
    """params: the whole adapted tree at its best epoch. steps: batches seen. history: one dict an
    epoch (epoch, loss, dev_loss, grad_norm).
    """

    params: dict
    steps: int
    history: list[dict[str, float]]


class Run:
    """What stays the same during one training run, and how its state goes from epoch to epoch.

    The state is a pytree of arrays: what a checkpoint holds. states: float32[tokens of items and
    dev, D] entering `start_layer`, where they are computed once.
    """

    def __init__(self, lm, labels, items, dev, dev_targets, settings, seed, meter, states):
        if not items:
            raise UserError("there are no training examples; raise the number of labelled examples")
        self.lm, self.items, self.dev, self.dev_targets = lm, items, dev, dev_targets
        self.settings, self.seed, self.gamma = settings, seed, float(settings.focal_gamma)
        self.network = trained_network(lm.network, settings.remat)
        self.train, self.frozen = tree.split(lm.params, labels)
        if not tree.flatten(self.train):
            raise UserError("the method trains nothing: no parameter is chosen; name some")
        cut = first_trained_layer(labels, lm.config.layers)
        self.states = states.states(lm, self.frozen, [*items, *dev], cut, meter)
        self.start_layer = 0 if self.states is None else cut
        self.steps_per_epoch = math.ceil(len(items) / settings.batch_size)
        batches, each = settings.epochs * self.steps_per_epoch, settings.optim["accumulate"]
        if 0 < batches < each:
            raise UserError(
                f"optim.accumulate={each} is more than the {batches} batches of all epochs, so "
                "nothing would be updated; lower it"
            )
        self.optimizer = Optimizer(
            steps=max(1, batches // each),
            labels=tuple((path, labels[path]) for path in tree.flatten(self.train)),
            **settings.optim,
        )
        self.rates = self.optimizer.rates()

    def start(self) -> State:
        """State before the first epoch."""
        return {
            "train": self.train,
            "opt": self.optimizer.build().init(self.train),
            "best": self.train,
            "history": np.full((self.settings.epochs, 3), np.nan),
            "epoch": np.asarray(0),
            "best_epoch": np.asarray(0),
        }

    def finished(self, state: State) -> bool:
        """Whether the epochs are over, or as many as `patience` passed without a better one."""
        epoch, best = int(state["epoch"]), int(state["best_epoch"])
        patience = self.settings.patience
        waited = bool(patience and self.dev) and epoch - best >= patience
        return epoch >= self.settings.epochs or waited

    def steps_at(self, state: State) -> int:
        """Batches seen so far."""
        return int(state["epoch"]) * self.steps_per_epoch

    def key(self, step: int) -> jax.Array:
        """The random key of a step."""
        return stream(self.seed, "dropout", step)

    def checked(self, values: Mapping[str, jax.Array], step: int) -> dict[str, float]:
        """A step's metrics as numbers; raises UserError where one is not finite."""
        return loop.finite(values, step, self.settings.optim["learning_rate"])

    def after(self, state: State, train, opt, metrics, scores) -> tuple[State, dict[str, float]]:
        """The state after an epoch and what to log of it.

        metrics: of its steps; scores: [C] a development item.
        """
        epoch, dev_loss = int(state["epoch"]), self._dev_loss(scores)
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        history = np.array(state["history"])
        history[epoch] = means["loss"], means["grad_norm"], dev_loss
        better = not self.dev or epoch == 0 or dev_loss < np.nanmin(history[:epoch, 2])
        return {
            "train": train,
            "opt": opt,
            "best": train if better else state["best"],
            "history": history,
            "epoch": np.asarray(epoch + 1),
            "best_epoch": np.asarray(epoch + 1) if better else state["best_epoch"],
        }, {**means, **({"dev_loss": dev_loss} if self.dev else {})}

    def result(self, state: State) -> Trained:
        """The best epoch's parameters with what was frozen, and the history."""
        rows = np.asarray(state["history"])[: int(state["epoch"])]
        names = "loss", "grad_norm", "dev_loss"
        history = [
            {"epoch": i, **dict(zip(names, map(float, row), strict=True))}
            for i, row in enumerate(rows, start=1)
        ]
        best = jax.tree.map(jnp.asarray, state["best"])
        return Trained(tree.merge(self.frozen, best), self.steps_at(state), history)

    def _dev_loss(self, scores: Sequence[np.ndarray]) -> float:
        """Mean negative log-probability of the true choice among the choices, or of the text where
        there is no choice; nan without a set.
        """
        pairs = zip(scores, self.dev_targets, strict=True)
        chosen = [s[t] - (np.logaddexp.reduce(s) if len(s) > 1 else 0.0) for s, t in pairs]
        return -float(np.mean(chosen)) if chosen else math.nan
