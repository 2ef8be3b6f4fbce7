"""From the lines of results.jsonl and predictions.jsonl to one summary an arm.

S seeds (or demonstration draws) of an arm, N test items.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lmlite import metrics
from lmlite.errors import UserError

METRIC = "accuracy"
SPLIT = "test"
Records = Sequence[dict]


@dataclass(frozen=True)
class Summary:
    """An arm over its S seeds. A number that was not recorded is NaN.

    accuracy and its interval over items are in [0, 1]; `spread` is the standard deviation over
    seeds; costs are means over seeds, except `peak_bytes`, the largest. `near_best`: the 95 %
    interval of the paired difference from the most accurate arm includes 0.
    """

    arm: str
    family: str
    accuracy: metrics.Estimate
    spread: float
    seeds: int
    items: int
    labels: float
    trainable_params: float
    stored_bytes: float
    fit_seconds: float
    query_seconds: float
    query_flops: float
    peak_bytes: float
    near_best: bool = True

    @property
    def total_seconds(self) -> float:
        """Fitting once and answering every test item."""
        return self.fit_seconds + self.items * self.query_seconds


class Failure(NamedTuple):
    """A run without a result, and why, in one line."""

    arm: str
    seed: int
    reason: str


def summarize(rows: Records, predictions: Records) -> list[Summary]:
    """Summaries of the arms that have a result, most accurate first (then cheapest).

    rows: lines of results.jsonl; those of another metric or split than test accuracy are passed
    over, and a later line of the same arm and seed replaces an earlier one. predictions: lines of
    predictions.jsonl. Raises UserError if rows of several tasks are mixed, or if runs that are
    compared were not evaluated on the same items.
    """
    runs = [row for row in _latest(rows) if _reason(row) is None]
    by_arm = {row["arm"]: [] for row in runs}
    for row in runs:
        by_arm[row["arm"]].append(row)
    correct = _correct(by_arm, predictions)
    ranked = sorted((_summary(runs, correct[arm]) for arm, runs in by_arm.items()), key=_rank)
    return [replace(s, near_best=_near(correct[s.arm], correct[ranked[0].arm])) for s in ranked]


def failures(rows: Records) -> list[Failure]:
    """Runs whose `status` is an error or whose value is not a number."""
    failed = [(row, _reason(row)) for row in _latest(rows)]
    return [Failure(row["arm"], row["seed"], reason) for row, reason in failed if reason]


def _latest(rows: Records) -> list[dict]:
    tasks = sorted({row["task"] for row in rows})
    if len(tasks) > 1:
        raise UserError(f"results.jsonl: tasks {', '.join(tasks)} are mixed; report one at a time")
    wanted = [row for row in rows if row["split"] == SPLIT and row["metric"] == METRIC]
    return list({(row["arm"], row["seed"]): row for row in wanted}.values())


def _reason(row: dict) -> str | None:
    """Why a row has no result; None if it has one."""
    status = row.get("status") or "ok"
    if status != "ok":
        return " ".join(str(status).split())
    return f"{METRIC} is not a number" if np.isnan(_number(row, "value")) else None


def _number(row: dict, key: str) -> float:
    value = row.get(key)
    return float("nan") if value is None else float(value)


def _correct(by_arm: dict[str, list[dict]], predictions: Records) -> dict[str, np.ndarray]:
    """Right or wrong, bool [S, N] an arm, columns in one order of items for all arms."""
    hits = {(row["arm"], row["seed"]): {} for runs in by_arm.values() for row in runs}
    for line in predictions:
        if (run := (line["arm"], line["seed"])) in hits:
            hits[run][line["id"]] = line["prediction"] == line["target"]
    items = sorted(next(iter(hits.values()), {}))
    for (arm, seed), found in hits.items():
        if sorted(found) != items:
            raise UserError(
                f"predictions.jsonl: arm {arm}, seed {seed} has {len(found)} items that are not the"
                f" {len(items)} of the first run; delete the workdir's records and run again"
            )
    return {
        arm: np.array([[hits[arm, run["seed"]][i] for i in items] for run in runs], bool)
        for arm, runs in by_arm.items()
    }


def _summary(runs: list[dict], correct: np.ndarray) -> Summary:
    def mean(key):
        return float(np.mean([_number(run, key) for run in runs]))

    return Summary(
        arm=runs[0]["arm"],
        family=runs[0]["family"],
        accuracy=metrics.accuracy_interval(correct)._replace(value=mean("value")),
        spread=metrics.spread([run["value"] for run in runs]),
        seeds=len(runs),
        items=runs[0]["n"],
        labels=mean("examples"),
        trainable_params=mean("trainable_params"),
        stored_bytes=mean("stored_bytes"),
        fit_seconds=mean("train_seconds"),
        query_seconds=mean("eval_seconds") / runs[0]["n"],
        query_flops=mean("flops_per_query"),
        peak_bytes=float(np.max([_number(run, "peak_bytes") for run in runs])),
    )


def _rank(s: Summary) -> tuple[float, float]:
    return -s.accuracy.value, math.inf if math.isnan(s.total_seconds) else s.total_seconds


def _near(correct: np.ndarray, best: np.ndarray) -> bool:
    """Whether the items leave open that both are equally good; so do no items at all."""
    return not metrics.paired_difference(correct, best).high < 0
