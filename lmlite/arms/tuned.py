"""Every tuning method as an arm: fitting is gradient steps on the leaves that its labels train."""

import dataclasses
import time
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

from lmlite import tree
from lmlite.adapt import (
    Adaptation,
    Following,
    Method,
    attach,
    attach_headed,
    join,
    join_headed,
    randomly_headed,
)
from lmlite.arms.arm import Cost, Labelled, Log
from lmlite.arms.choices import ModelPredictor
from lmlite.arms.examples import Handling
from lmlite.arms.fisher import squared_gradients
from lmlite.arms.items import encode_examples, fills_mask, scored_items, training_items
from lmlite.data.item import Item
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.readings import check
from lmlite.models.lm import LM
from lmlite.models.quantized import is_quantized
from lmlite.runtime import Meter, stream
from lmlite.train import Settings, Trained, fit


class Start(NamedTuple):
    """What training starts from: the first arguments of `fit`."""

    adapted: LM
    labels: dict[str, str]
    items: list[Item]
    dev: list[Item]
    dev_targets: list[int]
    settings: Settings


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A method of `lmlite.adapt.METHODS`, its training settings, and how examples are handled.

    readings: of the tuned model's scores beside the plain one, see `lmlite.icl.readings`.
    """

    family: ClassVar[str] = "tuning"
    method: Method
    settings: Settings
    handling: Handling = Handling()
    readings: tuple[str, ...] = ()

    def __post_init__(self):
        check(self.readings)
        if self.handling.class_weights and self.settings.batch_size == 1:
            raise UserError(
                "data.class_weights weigh the examples of a batch against each other, and do "
                "nothing with train.batch_size=1; raise it, or take data.sampling"
            )

    def runs(self, seeds, draws):
        """One run a seed: initialisation and the order of the examples are random."""
        return seeds

    def form(self) -> Hashable | None:
        """Arms of equal form can be fitted together; None: this one with no other."""
        s, form = self.settings, self.method.form()
        if self.handling != Handling():
            return None  # its examples differ with the seed
        steps = s.optim["clip_norm"], s.optim["accumulate"], s.optim.get("beta2")
        return form and (form, s.epochs, s.batch_size, s.focal_gamma, s.remat, *steps)

    def details(self, seed: int) -> dict:
        """Nothing beside the seed."""
        return {}

    def fit(self, lm: LM, task: Task, data: Labelled, seed: int, log: Log) -> ModelPredictor:
        """Trains and returns the zero-shot predictor of the tuned model."""
        began, meter = time.perf_counter(), Meter()
        start = self.start(lm, task, data, seed, meter)
        arm, result = self, fit(*start, seed, meter, log.directory, log.scalars, log.states)
        if following := self.method.following(result.params):
            arm, start = self._following(lm, start, result, following)
            place = log.directory and log.directory.with_name(f"{log.directory.name}-following")
            result = fit(*start, seed, meter, place, log.scalars, log.states)
        seconds = time.perf_counter() - began + meter.owed - meter.compile_seconds
        cost = Cost(
            examples=len(data.all),
            **arm.size(lm, start, result),
            train_seconds=seconds,
            train_flops=meter.flops,
            train_bytes=meter.bytes,
            compile_seconds=meter.compile_seconds,
        )
        return arm.predictor(lm, task, start, result, cost)

    def start(self, lm: LM, task: Task, data: Labelled, seed: int, meter: Meter) -> Start:
        """The adapted model and the examples as items."""
        encoded, targets = encode_examples(lm, task, data.train), [e.target for e in data.train]
        headed, classes = self.headed(lm, data.train), len(task.choices)
        bare = headed and self.method.head is None
        if headed and not classes:
            raise UserError(
                "a classification head needs task.choices, the same for all items, and this task "
                "has none; use a decoder, and a method without a head"
            )

        def squares(paths):
            graded = randomly_headed(lm, stream(seed, "fisher"), classes) if bare else lm
            return squared_gradients(graded, training_items(graded, encoded, targets), meter, paths)

        put = attach_headed if bare else attach
        adapted, labels = put(self.method, lm, stream(seed, "init"), classes, squares)
        items = self.handling.items(adapted, task, data.train, seed)
        dev = scored_items(adapted, encode_examples(lm, task, data.dev))
        optim = self.settings.optim
        trained = set(labels.values())
        own = (group for group in self.method.groups(lm) if group[0] in trained)
        groups = (*own, *optim.get("groups", ()))
        settings = dataclasses.replace(self.settings, optim={**optim, "groups": groups})
        dev_targets = [e.target if e.choices else 0 for e in data.dev]
        return Start(adapted, labels, items, dev, dev_targets, settings)

    def headed(self, lm: LM, examples: Sequence[Example]) -> bool:
        """Whether the tuned model answers by a classification head, the method's or its own."""
        reads = lm.config.causal or fills_mask(lm, examples)
        return self.method.head is not None or not reads

    def _following(
        self, lm: LM, start: Start, result: Trained, following: Following
    ) -> tuple["Tuned", Start]:
        """The arm of what is trained next, and what it starts from: the same examples and head."""
        method, added, rate = following
        if self.method.head is None and lm.head is None and start.adapted.head is not None:
            adapted, labels = join_headed(method, lm, added, result.params["probe"])
        else:
            adapted, labels = join(method, lm, added)
        optim = {**self.settings.optim, "learning_rate": rate, "groups": ()}
        settings = dataclasses.replace(self.settings, optim=optim)
        arm = dataclasses.replace(self, method=method, settings=settings)
        return arm, start._replace(adapted=adapted, labels=labels, settings=settings)

    def size(self, lm: LM, start: Start, result: Trained) -> dict[str, int]:
        """The sizes among the fields of `Cost`."""
        moved, _ = tree.split(result.params, start.labels)
        kept = self.method.kept(lm, result.params, moved)
        return {"trainable_params": tree.count(moved), "stored_bytes": tree.size_bytes(kept)}

    def predictor(self, lm: LM, task: Task, start: Start, result: Trained, cost: Cost):
        """What answers queries after training `start` on the base `lm`."""
        found = Adaptation.of(self.method, lm, result.params)
        deployed = self._deployed(lm, start, result)
        return ModelPredictor(deployed, task, cost, readings=self.readings, adaptation=found)

    def _deployed(self, lm: LM, start: Start, result: Trained) -> LM:
        """The model as it answers queries: folded into plain weights where the method can be, but
        not into quantized ones, which would lose their form.
        """
        if not self.method.foldable or lm.hooks or is_quantized(lm.params):
            return dataclasses.replace(start.adapted, params=result.params)
        params = self.method.merge(result.params)
        return dataclasses.replace(lm, params=params, head=start.adapted.head)
