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
from lmlite.metrics.measures import MEASURES, Measure

SPLIT = "test"
Records = Sequence[dict]


@dataclass(frozen=True)
class Summary:
    """An arm over its S seeds. A number that was not recorded is NaN.

    quality: in the task's main metric, with its interval over items; `spread` is the standard
    deviation over seeds; costs are means over seeds, except `peak_bytes`, the largest. `near_best`:
    the 95 % interval of the paired difference from the best arm, `behind`, includes 0; False where
    it is NaN, for want of values of single items. p_value: of McNemar's test between the first runs
    of both, where items are right or wrong.
    """

    arm: str
    family: str
    quality: metrics.Estimate
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
    near_best: bool = False
    metric: str = "accuracy"
    behind: metrics.Estimate = metrics.Estimate(*[math.nan] * 3)
    p_value: float = math.nan

    @property
    def measure(self) -> Measure:
        """What `metric` names."""
        return MEASURES[self.metric]

    @property
    def merit(self) -> float:
        """The quality, negative where less is better."""
        return -self.quality.value if self.measure.lower else self.quality.value

    @property
    def tested(self) -> bool:
        """Whether the items say if the arm differs from the best."""
        return not math.isnan(self.behind.low)

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
    """Summaries of the arms that have a result, the best first (then the cheapest).

    rows: lines of results.jsonl; those of another split than test, or of another metric than the
    first line's, are passed over, and a later line of the same arm and seed replaces an earlier
    one. predictions: lines of predictions.jsonl. Raises UserError if rows of several tasks are
    mixed, or if runs that are compared were not evaluated on the same items.
    """
    runs = [row for row in _latest(rows) if _reason(row) is None]
    by_arm = {row["arm"]: [] for row in runs}
    for row in runs:
        by_arm[row["arm"]].append(row)
    values = _values(by_arm, predictions)
    ranked = sorted((_summary(runs, values[arm]) for arm, runs in by_arm.items()), key=_rank)
    return [_beside(s, values[s.arm], values[ranked[0].arm]) for s in ranked]


def failures(rows: Records) -> list[Failure]:
    """Runs whose `status` is an error or whose value is not a number."""
    failed = [(row, _reason(row)) for row in _latest(rows)]
    return [Failure(row["arm"], row["seed"], reason) for row, reason in failed if reason]


def _latest(rows: Records) -> list[dict]:
    tasks = sorted({row["task"] for row in rows})
    if len(tasks) > 1:
        raise UserError(f"results.jsonl: tasks {', '.join(tasks)} are mixed; report one at a time")
    wanted = [row for row in rows if row["split"] == SPLIT and row["metric"] == main_metric(rows)]
    return list({(row["arm"], row["seed"]): row for row in wanted}.values())


def main_metric(rows: Records) -> str:
    """The metric that arms are compared by: that of the first line."""
    return rows[0]["metric"] if rows else "accuracy"


def _reason(row: dict) -> str | None:
    """Why a row has no result; None if it has one."""
    status = row.get("status") or "ok"
    if status != "ok":
        return " ".join(str(status).split())
    return f"{row['metric']} is not a number" if np.isnan(_number(row, "value")) else None


def _number(row: dict, key: str) -> float:
    value = row.get(key)
    return float("nan") if value is None else float(value)


def _values(by_arm: dict[str, list[dict]], predictions: Records) -> dict[str, np.ndarray]:
    """What every item counts, float [S, N] an arm, columns in one order of items for all arms.

    NaN where an item has no value.
    """
    found = {(row["arm"], row["seed"]): {} for runs in by_arm.values() for row in runs}
    for line in predictions:
        if (run := (line["arm"], line["seed"])) in found:
            found[run][line["id"]] = _value(line)
    items = sorted(next(iter(found.values()), {}))
    for (arm, seed), own in found.items():
        if sorted(own) != items:
            raise UserError(
                f"predictions.jsonl: arm {arm}, seed {seed} has {len(own)} items that are not the"
                f" {len(items)} of the first run; delete the workdir's records and run again"
            )
    return {
        arm: np.array([[found[arm, run["seed"]][i] for i in items] for run in runs], float)
        for arm, runs in by_arm.items()
    }


def _value(line: dict) -> float:
    """What a prediction counts; right or wrong in files that do not say it."""
    if "value" in line:
        return _number(line, "value")
    return float(line["prediction"] == line["target"])


def _summary(runs: list[dict], values: np.ndarray) -> Summary:
    def mean(key):
        return float(np.mean([_number(run, key) for run in runs]))

    measure = MEASURES[runs[0]["metric"]]
    return Summary(
        arm=runs[0]["arm"],
        family=runs[0]["family"],
        quality=metrics.interval(values, measure.share)._replace(value=mean("value")),
        metric=runs[0]["metric"],
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
    return -s.merit, math.inf if math.isnan(s.total_seconds) else s.total_seconds


def _beside(s: Summary, values: np.ndarray, best: np.ndarray) -> Summary:
    """The summary with what its items say of its difference from the best arm's."""
    behind = metrics.paired_difference(values, best)
    near = behind.low <= 0 if s.measure.lower else behind.high >= 0
    p = math.nan
    if values.size and np.isin(values[0], (0, 1)).all() and np.isin(best[0], (0, 1)).all():
        p = metrics.mcnemar(values[0] > 0, best[0] > 0)
    return replace(s, near_best=near, behind=behind, p_value=p)
