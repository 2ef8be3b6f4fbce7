"""Optimizers over the trainable tree: one group a label, schedules, clipping, accumulation.

What is compiled is the `Rule`; the learning rates are an array among its arguments, so that runs
that differ in them share a compiled step, or stand side by side in one.
"""

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from lmlite import tree
from lmlite.errors import UserError
from lmlite.ranges import BELOW_ONE, number

SCHEDULES = ("constant", "linear", "cosine")
_OF_GROUPS = ("learning_rate", "weight_decay", "factor", "starts")
_RANGES: dict[str, tuple] = {  # least, most, kind
    "learning_rate": (0,),
    "head_learning_rate": (0,),
    "weight_decay": (0,),
    "factor": (0,),
    "starts": (0, 1),
    "warmup": (0, 1),
    "clip_norm": (0,),
    "accumulate": (1, math.inf, Integral),
    "beta2": (0, BELOW_ONE),
}


def check(fields: Mapping[str, Any]) -> None:
    """Raises UserError for fields of an `Optimizer` that cannot be: before anything is trained."""
    if fields.get("schedule", "linear") not in SCHEDULES:
        raise UserError(f"optim.schedule={fields['schedule']!r} is unknown; known: {SCHEDULES}")
    for name in _RANGES:
        if name in fields:
            _check_range(f"optim.{name}", name, fields[name])
    for group in fields.get("groups", ()):
        _check_group(group)


def _check_range(field: str, name: str, value: Any) -> None:
    if value is not None or name not in ("head_learning_rate", "clip_norm"):
        number(field, value, *_RANGES[name])


def _check_group(group: Any) -> None:
    """A group is (label, (field, value), ...)."""
    try:
        label, *pairs = group
        named = [(name, value) for name, value in pairs]
        if isinstance(group, str):
            raise TypeError
    except (TypeError, ValueError):
        raise UserError(f"optim.groups: {group!r} is not (label, (field, value), ...)") from None
    for name, value in named:
        if name not in _OF_GROUPS:
            raise UserError(f"optim.groups: {name!r} of {label!r} is unknown; known: {_OF_GROUPS}")
        _check_range(f"optim.groups: {name} of {label}", name, value)


class Rates(NamedTuple):
    """What one label learns by: learning_rate float32[updates], weight_decay float32[]."""

    learning_rate: np.ndarray
    weight_decay: np.ndarray


@dataclasses.dataclass(frozen=True)
class Rule:
    """AdamW over labelled groups, all but its numbers; hashable, it keys compiled steps.

    labels: (path, label) of every trainable leaf. The others: see `Optimizer`.
    """

    labels: tuple[tuple[str, str], ...]
    clip_norm: float
    accumulate: int
    beta2: float

    def build(self, rates: Mapping[str, Rates]) -> optax.GradientTransformation:
        """The optax transformation, to be used on the trainable tree alone; rates: by label."""
        transforms = {
            label: optax.adamw(jnp.asarray(rate).__getitem__, b2=self.beta2, weight_decay=decay)
            for label, (rate, decay) in rates.items()
        }
        tx = optax.partition(transforms, tree.unflatten(dict(self.labels)))
        if self.clip_norm:
            tx = optax.chain(optax.clip_by_global_norm(self.clip_norm), tx)
        return optax.MultiSteps(tx, self.accumulate) if self.accumulate > 1 else tx


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW over labelled groups.

    steps: optimizer updates in all. labels: (path, label) of every trainable leaf.
    groups: (label, (field, value), ...) that replace `learning_rate` or `weight_decay` for a label,
    multiply the rate by a `factor`, or make it 0 for the first fraction `starts` of the updates; of
    several of one label each replaces its own fields.
    head_learning_rate: of the leaves labelled `tree.HEAD`, which start at nothing.
    warmup: fraction of the steps. clip_norm: global norm over the trainable leaves, 0 for none.
    accumulate: batches averaged before an update. beta2: Adam's.
    """

    steps: int
    labels: tuple[tuple[str, str], ...]
    learning_rate: float
    head_learning_rate: float | None = None
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: float = 0.1
    clip_norm: float = 1.0
    accumulate: int = 1
    groups: tuple = ()
    beta2: float = 0.999

    def __post_init__(self):
        check(vars(self))

    @property
    def rule(self) -> Rule:
        """What it has in common with optimizers of other rates and schedules."""
        return Rule(self.labels, self.clip_norm, self.accumulate, self.beta2)

    def rates(self) -> dict[str, Rates]:
        """The numbers of each label.

        Raises UserError for a group that labels nothing.
        """
        names = sorted({label for _, label in self.labels})  # a set would change with the process
        overrides: dict[str, dict] = {}
        for label, *pairs in self.groups:
            overrides[label] = overrides.get(label, {}) | dict(pairs)
        if unknown := sorted(set(overrides) - set(names)):
            raise UserError(f"optim.groups names {unknown[0]!r}; labels here are {sorted(names)}")
        head = {"learning_rate": self.head_learning_rate}
        overrides[tree.HEAD] = head | overrides.get(tree.HEAD, {})
        return {name: self._rates(**overrides.get(name, {})) for name in sorted(names)}

    def build(self) -> optax.GradientTransformation:
        """The optax transformation, to be used on the trainable tree alone; raises as `rates`."""
        return self.rule.build(self.rates())

    def _rates(self, learning_rate=None, weight_decay=None, factor=1.0, starts=0.0) -> Rates:
        rate = self.learning_rate if learning_rate is None else learning_rate
        decay = self.weight_decay if weight_decay is None else weight_decay
        table = np.asarray(self._schedule(rate * factor)(np.arange(self.steps)), np.float32)
        waiting = np.arange(self.steps) < starts * self.steps
        return Rates(np.where(waiting, np.float32(0.0), table), np.float32(decay))

    def _schedule(self, rate: float) -> optax.Schedule:
        warmup = round(self.warmup * self.steps)
        rest = max(self.steps - warmup, 1)
        if self.schedule == "constant":
            after = optax.constant_schedule(rate)
        elif self.schedule == "linear":
            after = optax.linear_schedule(rate, 0.0, rest)
        else:
            after = optax.cosine_decay_schedule(rate, rest)
        if not warmup:
            return after
        # The first update already moves: 1/w, 2/w, ... rather than 0, 1/w, ...
        rise = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
        return optax.join_schedules([rise, after], [warmup])
