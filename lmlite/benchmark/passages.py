"""Four-choice questions, several to a passage, against lm-evaluation-harness.

Q questions, C choices.
"""

import time
from collections import Counter
from itertools import chain

from ml_collections import ConfigDict

from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.data.tasks import load_task
from lmlite.models.load import load
from lmlite.runtime import Meter


def case(bench: Bench) -> list[Measure]:
    """Seconds of scoring, and how far the log-probabilities are apart."""
    ours, peer = bench.ours("passages"), None
    if bench.has_peers:
        job = dict(model=bench.model, requests=ours.values["requests"])
        peer = bench.peer("lm_eval_score", **job, batch_size=bench.config.icl.peer_batch_size)
    seconds = peer and peer.numbers["score_seconds"]
    apart = peer and largest_difference(ours.values["scores"], peer.values["scores"])
    return [
        Measure("passages", "scoring", "s", ours.numbers["score_seconds"], seconds, at_least=10),
        Measure("passages", "log-probabilities apart by", "nats", apart, at_most=1e-3),
    ]


def measure(job: dict) -> dict:
    """Scores the questions of passages that have config.passages.least or more of them, without
    demonstrations; seconds are without compilation. Values as in `in_context.measure`.
    """
    config = ConfigDict(job["config"])
    task = load_task(config.passages.task)
    items = task.train + task.dev + task.test
    counts = Counter(e.group for e in items)
    asked = [e for e in items if counts[e.group] >= config.passages.least]
    lm = load(config.model)
    meter, start = Meter(), time.perf_counter()
    predictor = InContext(0, readings=()).fit(lm, task, Labelled((), ()), config.seed, Log())
    scores = predictor.predict(asked, meter)[""]
    seconds = time.perf_counter() - start - meter.compile_seconds
    pairs = zip(asked, predictor.prompts(asked), strict=True)
    requests = [(text, task.target_delimiter + c) for e, text in pairs for c in e.choices]
    return {
        "numbers": {"score_seconds": seconds, "compile_seconds": meter.compile_seconds},
        "values": {"scores": [float(s) for s in chain(*scores)], "requests": requests},
    }
