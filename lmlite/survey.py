"""A survey: the comparison on several tasks, and one table that says where which way wins."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from lmlite.compare import compare
from lmlite.errors import UserError
from lmlite.report.tasks import by_task
from lmlite.workdir import Records, write_config, write_text

REPORT = "report.md"


def survey(config: ConfigDict, workdir: Path) -> None:
    """Runs `compare` on each of config.tasks, in a folder of its name, and writes report.md.

    A task's run is whole in itself and resumed like any other. An arm that fails on a task (a
    prompt too long, say) leaves the others; it is told of when all tasks are done.
    """
    found: list[tuple[str, Sequence[dict], Sequence[dict]]] = []
    failed = []
    for name, task in config.tasks.items():
        fields = config.to_dict()
        del fields["tasks"]
        one = ConfigDict({**fields, "task": task.to_dict()}).lock()
        write_config(workdir / name, one)
        print(f"== {name}", flush=True)
        try:
            compare(one, workdir / name)
        except UserError as error:
            failed.append(f"{name}: {error}")
        files = ("results", "predictions")
        found.append((name, *(Records(workdir / name / f"{f}.jsonl").rows() for f in files)))
        write_text(workdir / REPORT, by_task(found, config.model))
    print((workdir / REPORT).read_text())
    if failed:
        raise UserError("; ".join(failed))
