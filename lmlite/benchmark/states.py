"""The last layers tuned with what enters them computed once, against computing it in every step."""

import time

from ml_collections import ConfigDict

from lmlite.adapt.select import LastLayers
from lmlite.arms.tuned import Tuned
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.benchmark.training import lora_settings
from lmlite.compare import labelled
from lmlite.data.tasks import load_task
from lmlite.models.load import load
from lmlite.run import Run
from lmlite.runtime import Meter
from lmlite.states import StateStore
from lmlite.train import Training

_WAYS = "once", "anew"
_CLOCKS = "epoch_seconds", "epoch_processor_seconds"


def case(bench: Bench) -> list[Measure]:
    """Seconds an epoch both ways, of the filling, and how far the losses are apart."""
    found = bench.ours("states")
    once, anew = ([found.numbers[f"{c}_{way}"] for c in _CLOCKS] for way in _WAYS)
    apart = largest_difference(*(found.values[f"losses_{way}"] for way in _WAYS))
    return [
        Measure("states", "an epoch after the first", "s", once[0], anew[0], at_least=5),
        Measure("states", "its processor seconds", "s", once[1], anew[1]),
        Measure("states", "computing the states", "s", found.numbers["fill_seconds"]),
        Measure("states", "losses apart by", "nats", apart, at_most=1e-4),
    ]


def measure(job: dict) -> dict:
    """Trains two runs by turns, an epoch each, with and without kept states.

    Seconds are means of the epochs after the first, each with its pass over the development
    examples, without compilation; of two clocks, the second that of all processor cores. The values
    hold the losses of every epoch, in training and in development.
    """
    config = ConfigDict(job["config"])
    meter = Meter()
    start, fills, runs = _start(config), {}, {}
    for way, store in zip(_WAYS, (StateStore(), StateStore(memory_bytes=0)), strict=True):
        (fills[way], _), run = _timed(meter, Run, *start, config.seed, meter, store)
        runs[way] = Training.of(run, meter)
    states = {way: run.start() for way, run in runs.items()}
    seconds, losses = ({way: [] for way in runs} for _ in range(2))
    for epoch in range(config.states.epochs):
        for way, run in runs.items():
            took, (states[way], told) = _timed(meter, run.epoch, states[way])
            seconds[way] += [took] if epoch else []
            losses[way] += told["loss"], told["dev_loss"]
    numbers = {"fill_seconds": fills["once"]}
    for way, took in seconds.items():
        means = (sum(each) / len(took) for each in zip(*took, strict=True))
        numbers |= {f"{c}_{way}": mean for c, mean in zip(_CLOCKS, means, strict=True)}
    return {"numbers": numbers, "values": {f"losses_{way}": x for way, x in losses.items()}}


def _start(config: ConfigDict):
    """What both runs start from: the first arguments of `Run`."""
    c, task, lm = config.states, load_task(config.task), load(config.model)
    settings = lora_settings(config, c.epochs, c.batch_size, c.learning_rate)
    data = labelled(task, c.examples, c.dev_fraction, config.seed)
    return Tuned(LastLayers(c.layers), settings).start(lm, task, data, config.seed, Meter())


def _timed(meter: Meter, call, *args):
    """((seconds without compilation, processor seconds) of the call, its result)."""
    began, used = time.perf_counter() - meter.compile_seconds, time.process_time()
    result = call(*args)
    ended = time.perf_counter() - meter.compile_seconds
    return (ended - began, time.process_time() - used), result
