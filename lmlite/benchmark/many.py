"""Several LoRA runs in one compiled step against the same runs in turn."""

import time

from ml_collections import ConfigDict

from lmlite.arms import Fit, Labelled, Log, fit_together
from lmlite.arms.tuned import Tuned
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.benchmark.training import lora_method, lora_settings
from lmlite.compare import labelled
from lmlite.data.tasks import load_task
from lmlite.models.load import load


def case(bench: Bench) -> list[Measure]:
    """Seconds of training and memory both ways, and how far the last losses are apart."""
    together, turn = (bench.ours("many", cache="many", together=t) for t in (True, False))
    fast, slow = together.numbers, turn.numbers
    apart = largest_difference(together.values["losses"], turn.values["losses"])
    return [
        Measure("many", "training", "s", fast["train_seconds"], slow["train_seconds"]),
        Measure("many", "compilation", "s", fast["compile_seconds"], slow["compile_seconds"]),
        Measure("many", "peak memory", "MiB", fast["peak_kib"] / 1024, slow["peak_kib"] / 1024),
        Measure("many", "last losses apart by", "nats", apart, at_most=1e-3),
    ]


def measure(job: dict) -> dict:
    """Trains config.many.arms runs, together or in turn; the values hold each one's last loss.

    Seconds are of all runs, without compilation; learning rates go up to twice config.lora's.
    """
    config = ConfigDict(job["config"])
    task, lm = load_task(config.task), load(config.model)
    data = Labelled(labelled(task, config.many.examples, 0.0, config.seed).train, ())
    losses: dict[int, float] = {}
    fits = [_fit(config, arm, losses) for arm in range(config.many.arms)]
    began = time.perf_counter()
    if job["together"]:
        costs = [predictor.cost for predictor in fit_together(fits, lm, task, data)]
    else:
        costs = [f.arm.fit(lm, task, data, f.seed, f.log).cost for f in fits]
    seconds, compiling = time.perf_counter() - began, sum(cost.compile_seconds for cost in costs)
    numbers = {"train_seconds": seconds - compiling, "compile_seconds": compiling}
    return {"numbers": numbers, "values": {"losses": [losses[f.seed] for f in fits]}}


def _fit(config: ConfigDict, arm: int, losses: dict[int, float]) -> Fit:
    c, seed = config.many, config.seed + arm
    rate = config.lora.learning_rate * (1 + arm / c.arms)
    settings = lora_settings(config, c.epochs, c.batch_size, rate)

    def told(step, values):
        losses[seed] = values["loss"]

    return Fit(Tuned(lora_method(config), settings), seed, Log(scalars=told))
