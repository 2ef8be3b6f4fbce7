"""Optimizers over the trainable tree: one group a label, schedules, clipping, accumulation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from lmlite import tree
from lmlite.errors import UserError

SCHEDULES = ("constant", "linear", "cosine")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW over labelled groups; hashable, so equal settings share a compiled step.

    steps: optimizer updates in all. labels: (path, label) of every trainable leaf.
    groups: (label, (field, value), ...) that replace `learning_rate` or `weight_decay` for a label.
    warmup: fraction of the steps. clip_norm: global norm over the trainable leaves, 0 for none.
    accumulate: batches averaged before an update. beta2: decay of the second moment.
    """

    steps: int
    labels: tuple[tuple[str, str], ...]
    learning_rate: float
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: float = 0.1
    clip_norm: float = 1.0
    accumulate: int = 1
    groups: tuple = ()
    beta2: float = 0.999

    def build(self) -> optax.GradientTransformation:
        """The optax transformation, to be used on the trainable tree alone.

        Raises UserError for an unknown schedule or a group that labels nothing.
        """
        names = {label for _, label in self.labels}
        overrides = {label: dict(pairs) for label, *pairs in self.groups}
        if unknown := sorted(set(overrides) - names):
            raise UserError(f"optim.groups names {unknown[0]!r}; labels here are {sorted(names)}")
        transforms = {name: self._group(**overrides.get(name, {})) for name in names}
        tx = optax.partition(transforms, tree.unflatten(dict(self.labels)))
        if self.clip_norm:
            tx = optax.chain(optax.clip_by_global_norm(self.clip_norm), tx)
        return optax.MultiSteps(tx, self.accumulate) if self.accumulate > 1 else tx

    def step(self, objective: Callable, train: Any, opt: Any) -> tuple[Any, Any, dict]:
        """One update down the gradient of objective(train): (train, opt, loss and grad_norm)."""
        value, grads = jax.value_and_grad(objective)(train)
        updates, opt = self.build().update(grads, opt, train)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return optax.apply_updates(train, updates), opt, metrics

    def _group(self, learning_rate=None, weight_decay=None) -> optax.GradientTransformation:
        rate = self.learning_rate if learning_rate is None else learning_rate
        decay = self.weight_decay if weight_decay is None else weight_decay
        return optax.adamw(self._schedule(rate), b2=self.beta2, weight_decay=decay)

    def _schedule(self, rate: float) -> optax.Schedule:
        warmup = round(self.warmup * self.steps)
        rest = max(self.steps - warmup, 1)
        if self.schedule == "constant":
            after = optax.constant_schedule(rate)
        elif self.schedule == "linear":
            after = optax.linear_schedule(rate, 0.0, rest)
        elif self.schedule == "cosine":
            after = optax.cosine_decay_schedule(rate, rest)
        else:
            raise UserError(f"optim.schedule={self.schedule!r} is unknown; known: {SCHEDULES}")
        if not warmup:
            return after
        # The first update already moves: 1/w, 2/w, ... rather than 0, 1/w, ...
        rise = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
        return optax.join_schedules([rise, after], [warmup])
