"""A loop of training that can be stopped at any moment: epochs, with a checkpoint after each."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmlite.checkpoint import Checkpoints
from lmlite.errors import UserError
from lmlite.runtime import COSTS, Meter

Log = Callable[[int, Mapping[str, float]], None]
COST = "cost"  # in a state: what its epochs have cost, float64[COSTS]


class Job(Protocol):
    """One training run; all that changes in it is a state, a pytree of arrays with an 'epoch'.

    meter: what its epochs run under.
    """

    meter: Meter

    def start(self) -> dict:
        """The state before the first epoch."""

    def finished(self, state: dict) -> bool:
        """Whether no epoch follows `state`."""

    def epoch(self, state: dict) -> tuple[dict, dict[str, float]]:
        """The state an epoch later, and what to log of that epoch."""

    def step(self, state: dict) -> int:
        """Optimizer steps taken so far."""


def run(job: Job, directory: Path | None, log: Log) -> dict:
    """The state in which `job` is finished, from the newest checkpoint under `directory`, if any.

    A job whose epochs are pure functions of the state ends bit-equal to one never interrupted. Its
    meter has the cost of the epochs before a stop too, see `begun`.
    """
    store = Checkpoints(directory) if directory else None
    state = begun(job.start(), store, job.meter)
    clock = Clock(job.meter)
    while not job.finished(state):
        after, values = job.epoch(state)
        state = {**after, COST: state[COST] + clock.lap()}
        log(job.step(state), values)
        if store:
            store.save(int(state["epoch"]), state)
    if store:
        store.close()
    return state


def begun(state: dict, store: Checkpoints | None, meter: Meter) -> dict:
    """`state`, or the newest of its kind in the store, with what it has cost, 0 for a new one.

    The meter is given that cost: its seconds are `owed`, since they passed in another process.
    """
    state = {**state, COST: np.zeros(len(COSTS))}
    if store and (found := store.restore(state)) is not None:
        state = found
    work = Meter(**dict(zip(COSTS, map(float, state[COST]), strict=True)))
    meter.share(work, work.seconds + work.compile_seconds, arms=1, here=False)
    return state


class Clock:
    """What passes from now on: wall time, and what programs cost under a meter."""

    def __init__(self, meter: Meter):
        self._meter = meter
        self._last = self._now()

    def lap(self) -> np.ndarray:
        """float64[COSTS] since the last call; the seconds are wall time without compilation."""
        last, self._last = self._last, self._now()
        return self._last - last

    def _now(self) -> np.ndarray:
        wall = {"seconds": time.perf_counter() - self._meter.compile_seconds}
        return np.array([(vars(self._meter) | wall)[name] for name in COSTS])


def finite(values: Mapping[str, Any], step: int, learning_rate: float) -> dict[str, float]:
    """A step's metrics as numbers. UserError where one is not finite; it names the step."""
    numbers = {name: float(value) for name, value in values.items()}
    if not all(math.isfinite(value) for value in numbers.values()):
        raise UserError(
            f"the loss is {numbers['loss']} (gradient norm {numbers['grad_norm']}) at step "
            f"{step}; lower learning_rate={learning_rate}"
        )
    return numbers
