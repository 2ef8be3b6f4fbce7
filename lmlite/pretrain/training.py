"""Gradient training of a whole model on a token stream, over all devices, resumable.

R rows, T tokens a row, U targets a row.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import loop, ranges, tree
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.models.network import Network
from lmlite.optim import Optimizer, Rule, check
from lmlite.pretrain.corpus import Stream
from lmlite.pretrain.loss import TRAIN, held_out_loss, token_losses
from lmlite.pretrain.objectives import Objective, Rows
from lmlite.runtime import Meter, Program, data_parallel
from lmlite.step import update

# Norms and biases are labelled apart, so that weight decay can leave them alone.
RULES = ((".*/(kernel|embedding)", "weights"), (".*", "others"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """steps: optimizer steps times optim.accumulate. batch_size: rows a step. eval_every: steps
    between two readings of the held-out loss. optim: fields of `Optimizer`, without steps, labels.
    """

    steps: int
    batch_size: int
    eval_every: int
    seed: int
    optim: Mapping[str, Any]

    def __post_init__(self):
        for field in ("steps", "eval_every"):
            ranges.check(vars(self), field, 1)
        ranges.check(vars(self), "seed", 0, ranges.SEEDS)
        check(self.optim)
        if (each := self.optim["accumulate"]) > self.steps:
            raise UserError(
                f"optim.accumulate={each} is more than the {self.steps} steps, so nothing would be "
                "updated; lower it"
            )


HISTORY = ("step", "loss", "grad_norm", "held_out_loss")


@dataclasses.dataclass(frozen=True)
class Trained:
    """best, last: parameter trees in numpy, best by held-out loss. history: float64[readings, 4],
    its columns HISTORY, losses in nats a target. seconds, flops: of all steps, without compilation.
    """

    best: dict
    last: dict
    history: np.ndarray
    seconds: float
    flops: float


def _step(network: Network, rule: Rule, whole, train, opt, rates, rows: Rows):
    """One batch; `whole` is the sharding of what every device holds a copy of."""

    def objective(train):
        losses = token_losses(network, train, rows)
        return jnp.sum(losses * rows.weights) / jnp.maximum(jnp.sum(rows.weights), 1.0)

    new = update(rule, rates, objective, train, opt)
    return jax.lax.with_sharding_constraint(new, whole)


_train_step = Program(_step, static=3, donate=(3, 4))


def fit(
    lm: LM,
    objective: Objective,
    train: Stream,
    held_out: Stream,
    settings: Settings,
    meter: Meter,
    directory: Path | None = None,
    log: loop.Log = lambda step, values: None,
) -> Trained:
    """Trains every parameter of lm on windows of `train`, drawn at random with replacement.

    directory: where checkpoints go; a run found there goes on, and ends bit-equal to one that was
    never interrupted. The batch is split over all local devices. Raises UserError where that is
    impossible, a stream is shorter than a window, or the loss is not finite (naming the step).
    """
    run = _Run(lm, objective, train, held_out, settings, meter)
    return run.result(loop.run(run, directory, log))


class _Run:
    """See `loop.Job`: an epoch is the steps between two readings of the held-out loss."""

    def __init__(self, lm, objective, train, held_out, settings, meter):
        self.lm, self.objective, self.train, self.held_out = lm, objective, train, held_out
        self.settings, self.meter = settings, meter
        for name, stream in (("training", train), ("held-out", held_out)):
            if len(stream.ids) < objective.window:
                raise UserError(
                    f"the {name} text has {len(stream.ids)} tokens and a row takes "
                    f"{objective.window}; lower length or give more text"
                )
        self.whole, self.rowwise = data_parallel(settings.batch_size)
        labels = tree.label(lm.params, RULES)
        updates = settings.steps // settings.optim["accumulate"]
        self.optimizer = Optimizer(updates, tuple(labels.items()), **settings.optim)
        self.rates = self.optimizer.rates()
        self.epochs = math.ceil(settings.steps / settings.eval_every)

    def start(self) -> dict:
        params = _on_host(self.lm.params)
        return {
            "train": params,
            "opt": _on_host(self.optimizer.build().init(self.lm.params)),
            "best": params,
            "history": np.full((self.epochs, len(HISTORY)), np.nan),
            "epoch": np.asarray(0),
            "steps": np.zeros(2),  # seconds, FLOPs
        }

    def finished(self, state: dict) -> bool:
        return int(state["epoch"]) >= self.epochs

    def step(self, state: dict) -> int:
        return min(int(state["epoch"]) * self.settings.eval_every, self.settings.steps)

    def epoch(self, state: dict) -> tuple[dict, dict[str, float]]:
        epoch, first = int(state["epoch"]), self.step(state)
        last = min(first + self.settings.eval_every, self.settings.steps)
        # Copied, because the step may reuse its arguments' buffers and `best` may be the same.
        train, opt = (
            jax.device_put(jax.tree.map(jnp.array, state[name]), self.whole)
            for name in ("train", "opt")
        )
        metrics, meter = [], Meter()
        for step in range(first, last):
            rows = jax.device_put(self._rows(step), self.rowwise)
            train, opt, values = _train_step(
                meter,
                self.lm.network,
                self.optimizer.rule,
                self.whole,
                train,
                opt,
                self.rates,
                rows,
            )
            metrics.append(loop.finite(values, step, self.settings.optim["learning_rate"]))
        self.meter.compile_seconds += meter.compile_seconds
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        loss, _ = held_out_loss(
            self.lm.network, train, self.objective, self.held_out, self.settings.batch_size,
            self.settings.seed, self.meter,
        )  # fmt: skip
        history, train = np.array(state["history"]), _on_host(train)
        better = epoch == 0 or loss < np.nanmin(history[:epoch, 3])
        history[epoch] = last, means["loss"], means["grad_norm"], loss
        return {
            "train": train,
            "opt": _on_host(opt),
            "best": train if better else state["best"],
            "history": history,
            "epoch": np.asarray(epoch + 1),
            "steps": np.asarray(state["steps"]) + [meter.seconds, meter.flops],
        }, {**means, "held_out_loss": loss}

    def result(self, state: dict) -> Trained:
        return Trained(
            best=state["best"], last=state["train"], history=np.asarray(state["history"]),
            seconds=float(state["steps"][0]), flops=float(state["steps"][1]),
        )  # fmt: skip

    def _rows(self, step: int) -> Rows:
        """The batch of a step: a pure function of the seed and the step."""
        draw = np.random.default_rng([self.settings.seed, TRAIN, step])
        window = self.objective.window
        starts = draw.integers(0, len(self.train.ids) - window + 1, self.settings.batch_size)
        return self.objective.rows(*self.train.windows(starts, window), draw)


def _on_host(tree: Any) -> Any:
    """Copies in numpy, whatever devices hold the arrays."""
    return jax.tree.map(lambda x: np.array(x), tree)
