"""Long texts that share nothing, against lm-evaluation-harness: where planning has nothing to save.

Every token is computed, and read, once by either side.
"""

from ml_collections import ConfigDict

from lmlite.benchmark.measure import Measure
from lmlite.benchmark.process import Bench
from lmlite.benchmark.scoring import against_peer, scored
from lmlite.data.splits import sample
from lmlite.data.tasks import load_task


def case(bench: Bench) -> list[Measure]:
    """Seconds of scoring, and how far the log-probabilities are apart."""
    return against_peer(bench, "texts", at_least=1)


def measure(job: dict) -> dict:
    """Scores the answers of config.texts.test_items test items."""
    config = ConfigDict(job["config"])
    task = load_task(config.texts.task)
    test = sample(task.test, config.texts.test_items, config.seed, balanced=False)
    return scored(config, task, test)
