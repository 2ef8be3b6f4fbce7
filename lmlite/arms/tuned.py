"""Every tuning method as an arm: fitting is gradient steps on the leaves that its labels train."""

import dataclasses
import time
from typing import ClassVar

from lmlite import tree
from lmlite.adapt import Adaptation, Method, attach, attach_headed
from lmlite.arms.arm import Cost, Labelled, Log
from lmlite.arms.choices import ChoicePredictor, encode_examples, scored_items, training_items
from lmlite.arms.fisher import squared_gradients
from lmlite.data.tasks import Task
from lmlite.models.lm import LM
from lmlite.runtime import Meter, stream
from lmlite.train import Settings, fit


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A method of `lmlite.adapt.METHODS` with its training settings."""

    family: ClassVar[str] = "tuning"
    method: Method
    settings: Settings

    def runs(self, seeds, draws):
        """One run a seed: initialisation and the order of the examples are random."""
        return seeds

    def fit(self, lm: LM, task: Task, data: Labelled, seed: int, log: Log) -> ChoicePredictor:
        """Trains and returns the zero-shot predictor of the tuned model."""
        start, meter = time.perf_counter(), Meter()
        encoded, targets = encode_examples(lm, task, data.train), [e.target for e in data.train]

        def squares(paths):
            return squared_gradients(lm, training_items(lm, encoded, targets), meter, paths)

        bare = self.method.head is None and not lm.config.causal
        join = attach_headed if bare else attach
        adapted, labels = join(self.method, lm, stream(seed, "init"), len(task.choices), squares)
        train = training_items(adapted, encoded, targets)
        dev = scored_items(adapted, encode_examples(lm, task, data.dev))
        result = fit(
            adapted, labels, train, dev, [e.target for e in data.dev],
            self.settings, seed, meter, log.directory, log.scalars,
        )  # fmt: skip
        moved, _ = tree.split(result.params, labels)
        tuned = self._deployed(lm, adapted, result.params)
        cost = Cost(
            examples=len(data.all),
            trainable_params=tree.count(moved),
            stored_bytes=tree.size_bytes(moved),
            train_seconds=time.perf_counter() - start - meter.compile_seconds,
            train_flops=meter.flops,
            compile_seconds=meter.compile_seconds,
        )
        found = Adaptation.of(self.method, lm, result.params)
        return ChoicePredictor(tuned, task, cost, adaptation=found)

    def _deployed(self, lm: LM, adapted: LM, params: dict) -> LM:
        """The model as it answers queries: folded into plain weights where the method can be."""
        if not self.method.foldable or lm.hooks:
            return dataclasses.replace(adapted, params=params)
        return dataclasses.replace(lm, params=self.method.merge(params), head=adapted.head)
