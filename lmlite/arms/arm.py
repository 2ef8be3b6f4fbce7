"""The arm: every way of adapting a model to a task is fitted, asked and accounted for the same way.

n examples, C choices.

    (language model, task, labelled examples, seed) --fit--> Predictor --> scores of new examples

In-context learning fits by prefilling demonstrations, tuning by gradient steps; an arm that yields
another model (distilled, pruned, quantized), an adapter emitted by a hypernetwork, or a prompt fits
in the same way: it returns a `Predictor`, and nothing that compares, evaluates or reports changes.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lmlite.answers import Answers
from lmlite.data.task import Example, Task
from lmlite.models.lm import LM
from lmlite.runtime import Meter
from lmlite.states import StateStore


@dataclasses.dataclass(frozen=True)
class Cost:
    """What fitting took.

    examples: labels used, those of the development set included. trainable_params: scalars that
    moved. stored_bytes: what must be kept beside the base model. train_seconds: wall time without
    compilation. train_flops, train_bytes: of the compiled programs, see `Meter`. compile_seconds:
    tracing and compiling. together: arms fitted in one compiled step; the last four are then an
    equal share of the whole. The four are of all processes that a fit took: of one that was
    stopped, up to its last checkpoint.
    """

    examples: int
    trainable_params: int
    stored_bytes: int
    train_seconds: float
    train_flops: float
    train_bytes: float
    compile_seconds: float
    together: int = 1


class Predictor(Protocol):
    """A fitted arm. words: what it calls the task's choices, () for what the task calls them.
    of_texts: whether the plain scores are log-probabilities of the choices' texts.
    """

    cost: Cost
    kept: Answers
    words: tuple[str, ...]
    of_texts: bool

    def keeping(self, folder: Path) -> "Predictor":
        """The same with `kept` in `folder`: what it answers is left there as it goes, and what an
        evaluation that was stopped has left is not computed again.
        """

    def predict(self, examples: Sequence[Example], meter: Meter) -> Mapping[str, list[np.ndarray]]:
        """Scores [C] of each example's choices, higher is better, under one or more readings. Of a
        text that is given [1], its log-probability; [2] where the task asks what is greedy, with
        how many of its tokens greedy decoding passes by.

        The reading '' is the plain one; others ('contextual', 'batch') are reported as arms of
        their own that shared the work. What the prediction costs is added to `meter`.
        """

    def spaces(self, examples: Sequence[Example]) -> list[str]:
        """The white space that is scored with each text that is given."""

    def write(self, examples: Sequence[Example], meter: Meter, seed: int) -> list[list[str]]:
        """The texts that the task's `generation` asks for, S an example, drawn by the seed."""


class Arm(Protocol):
    """A way to adapt; `family` groups arms in tables and pictures."""

    family: str

    def runs(self, seeds: Sequence[int], draws: Sequence[int]) -> Sequence[int]:
        """The seeds worth running: one where nothing is random."""

    def form(self) -> Hashable | None:
        """Arms of equal form can be fitted by `fit_together`; None: this one with no other."""

    def details(self, seed: int) -> Mapping[str, int]:
        """What a run's seed stands for, for its rows of results."""

    def fit(self, lm: LM, task: Task, data: "Labelled", seed: int, log: "Log") -> Predictor:
        """Adapts `lm`, which stays as it is."""


@dataclasses.dataclass(frozen=True)
class Labelled:
    """The labelled examples every arm may use, split once for all: training and development."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]

    @property
    def all(self) -> tuple[Example, ...]:
        """Both parts."""
        return self.train + self.dev


@dataclasses.dataclass(frozen=True)
class Log:
    """Where a fit may leave checkpoints (None: nowhere), report progress, and find (and leave) the
    activations that other fits of the same frozen layers need too.
    """

    directory: Path | None = None
    scalars: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    states: StateStore = dataclasses.field(default_factory=StateStore)
