"""Cross-validation: the labelled examples in K parts, each held out once from a fit on the others.

K folds, S seeds, n examples.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from lmlite.arms import Arm, Labelled
from lmlite.arms.in_context import AS_TASK, InContext
from lmlite.compare import Comparison
from lmlite.data.fingerprint import fingerprint
from lmlite.data.splits import held_out, position, sample
from lmlite.data.task import Example
from lmlite.data.tasks import load_task
from lmlite.errors import UserError
from lmlite.jobs import grouped, jobs
from lmlite.metrics import Estimate, interval
from lmlite.metrics.measures import MEASURES
from lmlite.models.load import load
from lmlite.report import units
from lmlite.report.summary import main_metric
from lmlite.workdir import Records, write_data, write_text


def cross_validate(config: ConfigDict, workdir: Path) -> None:
    """Fits every arm of config.arms on each K - 1 of config.folds parts of the labelled examples.

    Writes a line a fold and seed to results.jsonl (split 'fold-0', ...), the held-out answers to
    predictions.jsonl, and folds.json and report.md over all of them. The test split is not touched.
    A fold whose result `workdir` holds is not fitted again. Raises UserError for bad settings, and
    where an arm cannot run.
    """
    if config.save:
        raise UserError(f"save=true: folds={config.folds} leave no one model; set folds=0")
    todo = list(jobs(config))
    if shown := [job.name for job in todo if _of_all_rows(job.arm)]:
        raise UserError(
            f"folds={config.folds}: arm {shown[0]} may show what is held out; give it a number of "
            "shots, drawn from the labelled examples"
        )
    task = load_task(config.task)
    examples = sample(task.train, config.examples, config.seed)
    parts = split_folds(examples, config.folds, config.seed)
    lm = load(config.model, config.dtype, config.quantize)
    write_data(workdir, fingerprint(task, lm.params, *parts))
    results, answers = (Records(workdir / f"{x}.jsonl") for x in ("results", "predictions"))
    done = {(row["job"], row["seed"], row["split"]) for row in results.rows()}
    for k, held in enumerate(parts):
        split, folder = f"fold-{k}", workdir / f"fold-{k}"
        data = _rest(examples, held, config.dev_fraction)
        fold = Comparison(lm, task, data, held, folder, split=split)
        missing = [job for job in todo if (job.name, job.seed, split) not in done]
        for group in grouped(missing, config.together):
            for job, outcome in zip(group, fold.outcomes(group), strict=True):
                if isinstance(outcome, UserError):
                    raise UserError(f"arm {job.name}, {split}: {outcome}") from outcome
                rows, predictions = outcome
                answers.add([{**one, "split": split} for one in predictions])
                results.add(rows)
                fold.forget(job)
                told = units.decimal(_number(rows[0]["value"]))
                print(f"{job.name}, seed {job.seed}, {split}: {told}", flush=True)
    summary = summarised(results.rows(), answers.rows())
    known = [{k: None if v != v else v for k, v in one.items()} for one in summary]  # NaN is none
    write_text(workdir / "folds.json", json.dumps(known, indent=1) + "\n")
    write_text(workdir / "report.md", _report(summary))
    print(_report(summary), f"report: {workdir / 'report.md'}", sep="\n")


def split_folds(examples: Sequence[Example], folds: int, seed: int) -> list[tuple[Example, ...]]:
    """The examples in `folds` parts: groups whole, every class spread as evenly as they allow.

    Raises UserError for fewer than two folds, or more than there are groups.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    if not 2 <= folds <= len(groups):
        raise UserError(
            f"folds={folds} must be between 2 and {len(groups)}, the number of groups among "
            f"{len(examples)} labelled examples"
        )
    parts: list[list[Example]] = [[] for _ in range(folds)]
    counts = [Counter() for _ in range(folds)]
    largest_first = sorted(groups, key=lambda g: (-len(groups[g]), position("fold", seed, g)))
    for name in largest_first:
        members = Counter(example.target for example in groups[name])
        common = members.most_common(1)[0][0]
        k = min(range(folds), key=lambda k: (counts[k][common], len(parts[k]), k))
        parts[k] += groups[name]
        counts[k] += members
    return [tuple(part) for part in parts]


def _rest(examples: Sequence[Example], held: Sequence[Example], fraction: float) -> Labelled:
    out = {example.id for example in held}
    return Labelled(*held_out([e for e in examples if e.id not in out], fraction))


def _of_all_rows(arm: Arm) -> bool:
    """Whether a prompt's demonstrations may be others than the labelled examples."""
    return isinstance(arm, InContext) and (arm.shots == AS_TASK or arm.choose == "first")


def summarised(rows: Sequence[dict], predictions: Sequence[dict]) -> list[dict]:
    """One dict an arm: the task's first metric over all n examples with its interval, and by fold.

    value, low, high: of the items' values [S, n], every example judged by the fit that did not see
    it; NaN bounds, and the mean of the folds, where items have none. folds: means
    over the seeds; sd: their standard deviation.
    """
    metric = main_metric(rows)
    out = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm and row["metric"] == metric]
        names = sorted({row["split"] for row in own}, key=lambda name: int(name.split("-")[1]))
        values = [
            float(np.mean([_number(row["value"]) for row in own if row["split"] == name]))
            for name in names
        ]
        items: dict[int, dict[str, float]] = {}
        for one in predictions:
            if one["arm"] == arm:
                items.setdefault(one["seed"], {})[one["id"]] = _number(one["value"])
        counted = np.array([[one[i] for i in sorted(one)] for one in items.values()])
        found = interval(counted, MEASURES[metric].share)
        if np.isnan(found.value):
            found = found._replace(value=float(np.mean(values)))
        sd = float(np.std(values, ddof=1))
        out.append({"arm": arm, "metric": metric, **found._asdict(), "sd": sd, "folds": values})
    return out


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _report(summary: Sequence[dict]) -> str:
    """A Markdown table, best first."""
    metric = summary[0]["metric"]
    measure = MEASURES[metric]
    unit, sign = measure.unit, 1 if measure.lower else -1
    title = f"{metric} %" if unit == "percent" else metric
    lines = [f"| arm | {title} [95 % CI] | sd over folds | folds |", "|---|---:|---:|---|"]
    for one in sorted(summary, key=lambda one: sign * one["value"]):
        found = units.estimate(Estimate(*(one[name] for name in Estimate._fields)), unit)
        folds = ", ".join(units.value(v, unit) for v in one["folds"])
        lines.append(f"| {one['arm']} | {found} | {units.value(one['sd'], unit)} | {folds} |")
    return "\n".join(lines) + "\n"
