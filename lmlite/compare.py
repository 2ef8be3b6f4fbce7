"""The comparison: every arm on the same model, labelled examples and test items."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lmlite import answers, arms
from lmlite.arms import Labelled, Log, Predictor
from lmlite.arms.attempt import attempt
from lmlite.data.fingerprint import fingerprint
from lmlite.data.splits import held_out, sample
from lmlite.data.task import Example, Task
from lmlite.data.tasks import load_task
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.jobs import Job, check_saving, grouped, jobs
from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.report import print_table, write_report
from lmlite.runtime import PeakMemory
from lmlite.states import StateStore
from lmlite.workdir import Records, event_writer, read_config, write_data


def compare(config: ConfigDict, workdir: Path, models: Path | None = None) -> None:
    """Runs config.arms; writes results.jsonl, predictions.jsonl, report.md and its pictures.

    models: where tuned models go, as Hugging Face directories; None keeps their checkpoints alone.

    A job whose result `workdir` holds is not run again; tuning that was cut off goes on from its
    checkpoint, an evaluation from the answers that it left. An arm that cannot run here (a
    UserError) does not stop the others: it is listed in the report, and raised when all are done.
    """
    todo = list(jobs(config))  # first: a misspelt arm should not wait for a download
    task, data, test = drawn(config)
    states = StateStore(workdir / "states")
    run = Comparison(
        load(config.model, config.dtype, config.quantize), task, data, test, workdir, models, states
    )
    write_data(workdir, fingerprint(task, run.lm.params, data.train, data.dev, test))
    for job in todo if models else ():
        check_saving(job, run.lm, data)
    results = Records(workdir / "results.jsonl")
    predictions = Records(workdir / "predictions.jsonl")
    done = {(row["job"], row["seed"]) for row in results.rows()}
    missing = [job for job in todo if (job.name, job.seed) not in done]
    failed = []
    for group in grouped(missing, config.together):
        for job, outcome in zip(group, run.outcomes(group), strict=True):
            title = f"[{todo.index(job) + 1}/{len(todo)}] {job.name}, seed {job.seed}"
            if isinstance(outcome, UserError):
                told = {"metric": task.metrics[0], "value": None, "status": str(outcome)}
                failed.append({**job.identity(task), **told})
                print(f"{title}: failed: {outcome}", flush=True)
                continue
            rows, shown = outcome
            predictions.add(shown)
            results.add(rows)
            run.forget(job)
            print(f"{title}: {_outcome(rows)}", flush=True)
    rows = results.rows() + failed
    sizes = {"train": len(data.train), "dev": len(data.dev), "test": len(test)}
    write_report(workdir, rows, predictions.rows(), {**read_config(workdir), "sizes": sizes})
    print_table(rows, predictions.rows())
    print(f"report: {workdir / 'report.md'}")
    if failed:
        reasons = {row["job"]: row["status"] for row in failed}
        raise UserError("; ".join(f"arm {name}: {reason}" for name, reason in reasons.items()))


def drawn(config: ConfigDict) -> tuple[Task, Labelled, tuple[Example, ...]]:
    """The task of a comparison, its labelled examples and its test items."""
    task = load_task(config.task)
    test = sample(task.test, min(config.test_items, len(task.test)), config.seed, balanced=False)
    return task, labelled(task, config.examples, config.dev_fraction, config.seed), test


def labelled(task: Task, examples: int, dev_fraction: float, seed: int) -> Labelled:
    """The one set of labelled examples, balanced over the classes, a part of it for development.

    Raises UserError where the fraction leaves no example to train on.
    """
    return Labelled(*held_out(sample(task.train, examples, seed), dev_fraction))


Outcome = tuple[list[dict], list[dict]] | UserError


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What all arms of a run have in common; split: what `test` is called in the results."""

    lm: LM
    task: Task
    data: Labelled
    test: tuple[Example, ...]
    workdir: Path
    models: Path | None = None
    states: StateStore = dataclasses.field(default_factory=StateStore)
    split: str = "test"

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Of each job its rows of results.jsonl and of predictions.jsonl, or why it has none.

        Several jobs are fitted together, and then asked the test items together.
        """
        memory = PeakMemory()
        with contextlib.ExitStack() as stack:
            events = [stack.enter_context(event_writer(self.workdir, job.run)) for job in jobs]
            logs = [self._log(job, writer) for job, writer in zip(jobs, events, strict=True)]
            for job, writer, fitted in zip(jobs, events, self._fit(jobs, logs), strict=True):
                yield attempt(self._evaluate, job, writer, fitted, memory)

    def forget(self, job: Job) -> None:
        """Removes what only an evaluation that goes on needs; for when the result is recorded."""
        answers.remove(self._answers(job))

    def _answers(self, job: Job) -> Path:
        return self.workdir / "answers" / job.run

    def _log(self, job: Job, events) -> Log:
        def scalars(step, values):
            for key, value in values.items():
                events.add_scalar(key, value, step)

        return Log(self.workdir / "checkpoints" / job.run, scalars, self.states)

    def _fit(self, jobs: Sequence[Job], logs: Sequence[Log]) -> Iterator[Predictor | UserError]:
        given = self.lm, self.task, self.data
        if len(jobs) > 1:
            fits = [arms.Fit(j.arm, j.seed, log) for j, log in zip(jobs, logs, strict=True)]
            yield from arms.fit_together(fits, *given)
        else:
            yield attempt(jobs[0].arm.fit, *given, jobs[0].seed, logs[0])

    def _evaluate(self, job: Job, events, fitted: Predictor | UserError, memory) -> Outcome:
        if isinstance(fitted, UserError):
            return fitted
        if self.models:
            fitted.lm.save(self.models / job.run)
        identity = job.identity(self.task, self.split)
        fitted = fitted.keeping(self._answers(job))
        results, predictions = evaluate(fitted, self.task, self.test, identity, memory)
        for row in results:
            if row["value"] is not None:
                events.add_scalar(f"test/{row['metric']}", row["value"])
        return results, predictions


def _outcome(rows: list[dict]) -> str:
    first = rows[0]
    main = [row for row in rows if row["metric"] == first["metric"] and row["value"] is not None]
    values = ", ".join(f"{row['arm']} {row['value']:.3f}" for row in main)
    named = f", words {', '.join(first['label_words'])}" if "label_words" in first else ""
    return (
        f"{values}{named} (fit {first['train_seconds']:.1f} s, test {first['eval_seconds']:.1f} s, "
        f"compile {first['compile_seconds']:.1f} s)"
    )
