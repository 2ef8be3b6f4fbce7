"""One evaluation for every arm: its predictor on the test items, as results and predictions.

n examples, C choices.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from lmlite.arms import Predictor
from lmlite.data.tasks import Example
from lmlite.runtime import Meter, PeakMemory

Rows = list[dict]


def evaluate(
    predictor: Predictor, examples: Sequence[Example], identity: dict, memory: PeakMemory
) -> tuple[Rows, Rows]:
    """(results, predictions) of one fitted arm, a reading at a time.

    identity: the row's `arm, task, split, seed, metric` and what else should stand in every row. A
    reading's name is added to the arm's ('16-shot+batch') and to its family. A query's cost is the
    whole pass divided by its n examples, compilation excluded. `fitted_together` arms shared a fit:
    the seconds and FLOPs of training are an equal share of it, `peak_bytes` is that of all of them.
    """
    meter, start = Meter(), time.perf_counter()
    readings = predictor.predict(examples, meter)
    seconds = time.perf_counter() - start - meter.compile_seconds
    cost = predictor.cost
    common = {
        "n": len(examples),
        "examples": cost.examples,
        "trainable_params": cost.trainable_params,
        "stored_bytes": cost.stored_bytes,
        "train_seconds": cost.train_seconds,
        "eval_seconds": seconds,
        "train_flops": cost.train_flops,
        "flops_per_query": meter.flops / len(examples),
        "peak_bytes": memory.read(),
        "fitted_together": cost.together,
        "compile_seconds": cost.compile_seconds + meter.compile_seconds,
    }
    results, predictions = [], []
    for reading, scores in readings.items():
        named = dict(identity)
        if reading:
            named["arm"] += f"+{reading}"
            named["family"] += ", calibrated"
        chosen = [int(np.argmax(s)) for s in scores]
        right = [c == e.target for c, e in zip(chosen, examples, strict=True)]
        results.append({**named, "value": float(np.mean(right)), **common})
        predictions.extend(_predictions(named, examples, chosen, scores))
    return results, predictions


def _predictions(named: dict, examples, chosen, scores) -> Iterator[dict]:
    for example, choice, values in zip(examples, chosen, scores, strict=True):
        yield {
            "arm": named["arm"],
            "task": named["task"],
            "seed": named["seed"],
            "id": example.id,
            "prediction": example.choices[choice],
            "target": example.choices[example.target],
            "scores": [float(v) for v in values],
        }
