"""Choice scoring after shared demonstrations, against lm-evaluation-harness.

Ours is the whole way from the config: the data, the model from its source, the tokens, the prefill.
The peer is given the model as a directory and its prompts as text.
"""

from ml_collections import ConfigDict

from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Bench
from lmlite.benchmark.scoring import scored
from lmlite.compare import labelled
from lmlite.data.splits import sample
from lmlite.data.tasks import load_task


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
    """Scores config.icl.test_items items after config.icl.shots demonstrations; see `scored`."""
    config = ConfigDict(job["config"])
    task = load_task(config.task)
    test = sample(task.test, config.icl.test_items, config.seed, balanced=False)
    data = labelled(task, config.icl.shots, 0.0, config.seed)
    return scored(config, task, test, config.icl.shots, data)


def _numbers(answer, name):
    return answer and answer.numbers[name]
