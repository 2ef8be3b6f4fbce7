"""The process that trains, and what a peer needs to train the same."""

import time
from itertools import chain
from typing import NamedTuple

from ml_collections import ConfigDict

from lmlite import peft, tree
from lmlite.adapt import Adaptation, attach
from lmlite.adapt.lora import LoRA
from lmlite.arms.items import encode_examples, training_items
from lmlite.compare import labelled
from lmlite.data.epochs import Epochs
from lmlite.data.item import Item
from lmlite.data.tasks import load_task
from lmlite.icl.encode import Encoded
from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.runtime import Meter, stream
from lmlite.train import Settings, fit


class _Start(NamedTuple):
    """What training starts from."""

    adapted: LM
    labels: dict[str, str]
    encoded: list[Encoded]
    targets: list[int]


def measure(job: dict) -> dict:
    """Trains on `examples` for `epochs` in `dtype` on a base in `quantize`; the values hold the
    mean loss of each epoch.
    """
    config = ConfigDict(job["config"])
    start = _start(config, job["examples"], job["dtype"], job["quantize"])
    c = config.lora
    settings = lora_settings(config, job["epochs"], c.batch_size, c.learning_rate)
    meter, began = Meter(), time.perf_counter()
    result = fit(
        start.adapted, start.labels, _items(start), (), (), settings, config.seed, meter
    )  # fmt: skip
    seconds = time.perf_counter() - began - meter.compile_seconds
    numbers = {"train_seconds": seconds, "compile_seconds": meter.compile_seconds}
    return {"numbers": numbers, "values": {"losses": [row["loss"] for row in result.history]}}


def export(job: dict) -> dict:
    """Writes the initial adapter to `directory`; the values are the peer's data, step by step."""
    config = ConfigDict(job["config"])
    start = _start(config, job["examples"], "float32")
    initial, _ = tree.split(start.adapted.params, start.labels)
    peft.write(job["directory"], Adaptation(lora_method(config), initial), start.adapted)
    pairs = zip(start.encoded, start.targets, strict=True)
    batches = _batches(config, start)
    values = {
        "examples": [{"context": e.context, "answer": e.choices[t]} for e, t in pairs],
        "batches": batches,
        "learning_rates": [config.lora.learning_rate] * len(batches),
        "clip_norm": config.lora.clip_norm,
    }
    return {"numbers": {}, "values": values}


def _start(config: ConfigDict, examples: int, dtype: str, quantize: str = "") -> _Start:
    task = load_task(config.task)
    lm = load(config.model, dtype, quantize)
    train = labelled(task, examples, 0.0, config.seed).train
    key = stream(config.seed, "init")
    adapted, labels = attach(lora_method(config), lm, key)
    return _Start(adapted, labels, encode_examples(lm, task, train), [e.target for e in train])


def _items(start: _Start) -> list[Item]:
    return training_items(start.adapted, start.encoded, start.targets)


def lora_method(config: ConfigDict) -> LoRA:
    """The method of config.lora."""
    c = config.lora
    return LoRA(targets=c.targets, rank=c.rank, alpha=c.alpha)


def lora_settings(config: ConfigDict, epochs: int, batch_size: int, rate: float) -> Settings:
    """Training at a constant learning rate, clipped as config.lora says."""
    optim = dict(
        learning_rate=rate,
        weight_decay=0.0,
        schedule="constant",
        warmup=0.0,
        clip_norm=config.lora.clip_norm,
        accumulate=1,
        groups=(),
    )
    return Settings(epochs=epochs, batch_size=batch_size, patience=0, optim=optim)


def _batches(config: ConfigDict, start: _Start) -> list[list[int]]:
    """The examples of every step, in the order of the steps."""
    c, context = config.lora, start.adapted.config.max_positions
    epochs = Epochs(_items(start), c.batch_size, c.epochs, config.seed, context)
    packed = chain.from_iterable(epochs.batches(epoch) for epoch in range(c.epochs))
    return [sorted({int(i) for i in b.owner[b.weights.any(axis=1)]}) for b in packed]
