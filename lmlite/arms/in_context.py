"""In-context learning as an arm: fitting is choosing demonstrations and prefilling them once."""

import dataclasses
import time
from typing import ClassVar

from lmlite.arms.arm import Cost, Labelled, Log
from lmlite.arms.choices import ChoicePredictor, encode_examples
from lmlite.data.splits import sample
from lmlite.data.tasks import Example, Task
from lmlite.icl.encode import shared_prefix
from lmlite.icl.score import prefill
from lmlite.models.lm import LM
from lmlite.runtime import Meter
from lmlite.tree import size_bytes


@dataclasses.dataclass(frozen=True)
class InContext:
    """k-shot prompting: `shots` demonstrations, balanced over the classes, drawn by the seed.

    readings: other readings of the same scores (Brown et al. 2020 for the plain one; see
    `lmlite.icl.calibrate`).
    """

    family: ClassVar[str] = "in-context"
    shots: int = 0
    readings: tuple[str, ...] = ("contextual", "batch")

    def runs(self, seeds, draws):
        """One run for zero shots, else one a draw."""
        return draws if self.shots else draws[:1]

    def form(self):
        """Nothing to train together."""
        return None

    def fit(self, lm: LM, task: Task, data: Labelled, seed: int, log: Log) -> ChoicePredictor:
        """Chooses and prefills the demonstrations."""
        start, meter = time.perf_counter(), Meter()
        demonstrations = sample(data.all, self.shots, seed) if self.shots else ()
        context = task.description + "".join(demonstration(task, e) for e in demonstrations)
        prefix_ids, prefix = (), None
        if context and not lm.config.cross:  # an encoder reads them anew with every query
            # Where the context's tokens end depends on what follows it, so two queries decide.
            probes = encode_examples(lm, task, (data.all + task.test)[:2], context)
            ids = [e.context for e in probes]
            prefix_ids = tuple(ids[0][: shared_prefix(ids)])
            prefix = prefill(lm.network, lm.params, prefix_ids, lm.config.max_positions, meter)
        cost = Cost(
            examples=len(demonstrations),
            trainable_params=0,
            stored_bytes=size_bytes(prefix) if prefix else 0,
            train_seconds=time.perf_counter() - start - meter.compile_seconds if context else 0.0,
            train_flops=meter.flops,
            compile_seconds=meter.compile_seconds,
        )
        return ChoicePredictor(lm, task, cost, context, prefix_ids, prefix, self.readings)


def demonstration(task: Task, example: Example) -> str:
    """An example with its answer, as it stands in a prompt."""
    answer = example.choices[example.target] if example.choices else example.target
    return example.prompt + task.target_delimiter + answer + task.fewshot_delimiter
