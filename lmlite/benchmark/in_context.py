"""Choice scoring after shared demonstrations, against lm-evaluation-harness.

n items, C choices.

Ours is the whole way from the config: the data, the model from its source, the tokens, the prefill.
The peer is given the model as a directory and its prompts as text.
"""

import time
from itertools import chain

from ml_collections import ConfigDict

from lmlite.arms import Log
from lmlite.arms.in_context import InContext
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.compare import labelled
from lmlite.data.splits import sample
from lmlite.data.tasks import load_task
from lmlite.models.load import load
from lmlite.runtime import Meter


def case(bench: Bench) -> list[Measure]:
    """Seconds of scoring and of whole processes, and how far the log-probabilities are apart."""
    first = bench.ours("icl", cache="icl")
    warm = bench.ours("icl", cache="icl")
    batch_size, peer = bench.config.icl.peer_batch_size, None
    if bench.has_peers:
        requests = first.values["requests"]
        job = dict(model=bench.model, requests=requests, batch_size=batch_size)
        peer = bench.peer("lm_eval_score", **job)
    scoring, whole = _numbers(peer, "score_seconds"), _numbers(peer, "process_seconds")
    apart = peer and largest_difference(first.values["scores"], peer.values["scores"])
    return [
        Measure("icl", "scoring", "s", first.numbers["score_seconds"], scoring, at_least=20),
        Measure("icl", "first process", "s", first.numbers["process_seconds"], whole, at_least=8),
        Measure("icl", "warm process", "s", warm.numbers["process_seconds"], whole, at_least=10),
        Measure("icl", "log-probabilities apart by", "nats", apart, at_most=1e-3),
    ]


def measure(job: dict) -> dict:
    """Scores config.icl.test_items test items; seconds are without compilation.

    The values hold n C scores, an item's choices together, and as many (context, continuation)
    pairs of text, which are what the peer scores.
    """
    config = ConfigDict(job["config"])
    task = load_task(config.task)
    lm = load(config.model)
    test = sample(task.test, config.icl.test_items, config.seed, balanced=False)
    data = labelled(task, config.icl.shots, 0.0, config.seed)
    meter, start = Meter(), time.perf_counter()
    predictor = InContext(config.icl.shots, readings=()).fit(lm, task, data, config.seed, Log())
    scores = predictor.predict(test, meter)[""]
    seconds = time.perf_counter() - start
    compiling = predictor.cost.compile_seconds + meter.compile_seconds
    pairs = zip(test, predictor.prompts(test), strict=True)
    requests = [(text, task.target_delimiter + c) for e, text in pairs for c in e.choices]
    return {
        "numbers": {"score_seconds": seconds - compiling, "compile_seconds": compiling},
        "values": {"scores": [float(s) for s in chain(*scores)], "requests": requests},
    }


def _numbers(answer, name):
    return answer and answer.numbers[name]
