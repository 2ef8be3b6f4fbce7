"""The comparison: every arm on the same model, labelled examples and test items, one at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from lmlite import arms
from lmlite.arms import Arm, Labelled, Log
from lmlite.data.splits import sample
from lmlite.data.tasks import Example, Task, load_task
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.report import print_table, write_report
from lmlite.runtime import PeakMemory
from lmlite.workdir import Records, event_writer, read_config


class Job(NamedTuple):
    """One fit and one evaluation."""

    name: str
    arm: Arm
    seed: int


def compare(config: ConfigDict, workdir: Path, models: Path | None = None) -> None:
    """Runs config.arms; writes results.jsonl, predictions.jsonl, report.md and its pictures.

    models: where tuned models go, as Hugging Face directories; None keeps their checkpoints alone.

    A job whose result `workdir` holds is not run again, and a tuning job that was cut off goes on
    from its checkpoint. An arm that cannot run here (a UserError) does not stop the others: it is
    listed in the report, and raised when all are done.
    """
    todo = list(jobs(config))  # first: a misspelt arm should not wait for a download
    task = load_task(config.task)
    test = sample(task.test, min(config.test_items, len(task.test)), config.seed, balanced=False)
    data = labelled(task, config.examples, config.dev_fraction, config.seed)
    lm = load(config.model, config.dtype)
    results = Records(workdir / "results.jsonl")
    predictions = Records(workdir / "predictions.jsonl")
    done = {(row["job"], row["seed"]) for row in results.rows()}
    failed = []
    for i, job in enumerate(todo, start=1):
        if (job.name, job.seed) in done:
            continue
        title = f"[{i}/{len(todo)}] {job.name}, seed {job.seed}"
        try:
            rows, answers = run_job(job, lm, task, data, test, workdir, models)
        except UserError as error:
            failed.append({**_identity(job, task), "value": None, "status": str(error)})
            print(f"{title}: failed: {error}", flush=True)
            continue
        predictions.add(answers)
        results.add(rows)
        print(f"{title}: {_outcome(rows)}", flush=True)
    rows = results.rows() + failed
    sizes = {"train": len(data.train), "dev": len(data.dev), "test": len(test)}
    write_report(workdir, rows, predictions.rows(), {**read_config(workdir), "sizes": sizes})
    print_table(rows, predictions.rows())
    print(f"report: {workdir / 'report.md'}")
    if failed:
        reasons = {row["job"]: row["status"] for row in failed}
        raise UserError("; ".join(f"arm {name}: {reason}" for name, reason in reasons.items()))


def labelled(task: Task, examples: int, dev_fraction: float, seed: int) -> Labelled:
    """The one set of labelled examples, balanced over the classes; its tail is for development.

    Raises UserError where the fraction leaves no example to train on.
    """
    drawn = sample(task.train, examples, seed)
    dev = math.ceil(dev_fraction * examples)
    if not 0 <= dev < examples:
        raise UserError(
            f"dev_fraction={dev_fraction} of examples={examples} leaves none to train on; "
            "lower it or raise examples"
        )
    return Labelled(drawn[: examples - dev], drawn[examples - dev :])


def run_job(
    job: Job,
    lm: LM,
    task: Task,
    data: Labelled,
    test: tuple[Example, ...],
    workdir: Path,
    models: Path | None = None,
) -> tuple[list[dict], list[dict]]:
    """Fits and evaluates one arm: its rows of results.jsonl and of predictions.jsonl."""
    memory = PeakMemory()
    name = f"{job.name}-{job.seed}"
    with event_writer(workdir, name) as events:

        def scalars(step, values):
            for key, value in values.items():
                events.add_scalar(key, value, step)

        log = Log(workdir / "checkpoints" / name, scalars)
        predictor = job.arm.fit(lm, task, data, job.seed, log)
        if models:
            predictor.lm.save(models / name)
        results, predictions = evaluate(predictor, test, _identity(job, task), memory)
        for row in results:
            events.add_scalar(f"test/{row['metric']}", row["value"])
    return results, predictions


def jobs(config: ConfigDict) -> Iterator[Job]:
    """Every fit that `config` asks for; UserError for an arm that cannot be built."""
    for name, spec in config.arms.items():
        arm = arms.build(spec.to_dict())
        for seed in arm.runs(config.seeds, config.draws):
            yield Job(name, arm, seed)


def _identity(job: Job, task: Task) -> dict:
    return {
        "arm": job.name,
        "job": job.name,
        "family": job.arm.family,
        "task": task.name,
        "split": "test",
        "seed": job.seed,
        "metric": "accuracy",
    }


def _outcome(rows: list[dict]) -> str:
    values = ", ".join(f"{row['arm']} {row['value']:.3f}" for row in rows)
    first = rows[0]
    return (
        f"{values} (fit {first['train_seconds']:.1f} s, test {first['eval_seconds']:.1f} s, "
        f"compile {first['compile_seconds']:.1f} s)"
    )
