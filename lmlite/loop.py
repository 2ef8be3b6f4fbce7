"""A loop of training that can be stopped at any moment: epochs, with a checkpoint after each."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from lmlite.checkpoint import Checkpoints
from lmlite.errors import UserError

Log = Callable[[int, Mapping[str, float]], None]


class Job(Protocol):
    """One training run; all that changes in it is a state, a pytree of arrays with an 'epoch'."""

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

    A job whose epochs are pure functions of the state ends bit-equal to one never interrupted.
    """
    store = Checkpoints(directory) if directory else None
    state = job.start()
    if store and (found := store.restore(state)) is not None:
        state = found
    while not job.finished(state):
        state, values = job.epoch(state)
        log(job.step(state), values)
        if store:
            store.save(int(state["epoch"]), state)
    if store:
        store.close()
    return state


def finite(values: Mapping[str, Any], step: int, learning_rate: float) -> dict[str, float]:
    """A step's metrics as numbers. UserError where one is not finite; it names the step."""
    numbers = {name: float(value) for name, value in values.items()}
    if not all(math.isfinite(value) for value in numbers.values()):
        raise UserError(
            f"the loss is {numbers['loss']} (gradient norm {numbers['grad_norm']}) at step "
            f"{step}; lower learning_rate={learning_rate}"
        )
    return numbers
