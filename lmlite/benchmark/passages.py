"""Four-choice questions, several to a passage, against lm-evaluation-harness."""

from collections import Counter

from ml_collections import ConfigDict

from lmlite.benchmark.measure import Measure
from lmlite.benchmark.process import Bench
from lmlite.benchmark.scoring import against_peer, scored
from lmlite.data.tasks import load_task


def case(bench: Bench) -> list[Measure]:
    """Seconds of scoring, and how far the log-probabilities are apart."""
    return against_peer(bench, "passages", at_least=10)


def measure(job: dict) -> dict:
    """Scores the questions of passages that have config.passages.least or more of them."""
    config = ConfigDict(job["config"])
    task = load_task(config.passages.task)
    items = task.train + task.dev + task.test
    counts = Counter(e.group for e in items)
    asked = [e for e in items if counts[e.group] >= config.passages.least]
    return scored(config, task, asked)
