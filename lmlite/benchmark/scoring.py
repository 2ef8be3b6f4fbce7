"""Scoring against lm-evaluation-harness: what such cases have in common.

n items, C choices; an item without choices has one answer.
"""

import time
from collections.abc import Sequence
from itertools import chain

from ml_collections import ConfigDict

from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.data.task import Example, Task
from lmlite.models.load import load
from lmlite.runtime import Meter

_NONE = Labelled((), ())


def against_peer(bench: Bench, name: str, at_least: float) -> list[Measure]:
    """Seconds of measurement `name` beside the peer's on the same requests, and the agreement."""
    ours, peer = bench.ours(name), None
    if bench.has_peers:
        job = dict(model=bench.model, requests=ours.values["requests"])
        peer = bench.peer("lm_eval_score", **job, batch_size=bench.config.icl.peer_batch_size)
    seconds = peer and peer.numbers["score_seconds"]
    apart = peer and largest_difference(ours.values["scores"], peer.values["scores"])
    mine = ours.numbers["score_seconds"]
    return [
        Measure(name, "scoring", "s", mine, seconds, at_least=at_least),
        Measure(name, "log-probabilities apart by", "nats", apart, at_most=1e-3),
    ]


def scored(
    config: ConfigDict,
    task: Task,
    items: Sequence[Example],
    shots: int = 0,
    data: Labelled = _NONE,
) -> dict:
    """Scores the choices, or the answer, of each item; seconds are without compilation.

    The values hold n C scores, an item's together, and as many (context, continuation) pairs of
    text, which are what the peer scores.
    """
    lm = load(config.model)
    meter, start = Meter(), time.perf_counter()
    predictor = InContext(shots, readings=()).fit(lm, task, data, config.seed, Log())
    scores = predictor.predict(items, meter)[""]
    seconds = time.perf_counter() - start
    compiling = predictor.cost.compile_seconds + meter.compile_seconds
    pairs = zip(items, predictor.prompts(items), strict=True)
    requests = [
        (text, task.target_delimiter + answer)
        for e, text in pairs
        for answer in e.choices or (e.answer,)
    ]
    return {
        "numbers": {"score_seconds": seconds - compiling, "compile_seconds": compiling},
        "values": {"scores": [float(s) for s in chain(*scores)], "requests": requests},
    }
