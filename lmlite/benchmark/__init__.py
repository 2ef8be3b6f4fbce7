"""Speed and memory beside other tools: every measurement a fresh process, all in one run.

`CASES` is the one table of cases: a case measures what it compares and returns the `Measure`s.
"""

import json
import os
import tempfile
from pathlib import Path

from ml_collections import ConfigDict

from lmlite.benchmark import generate, in_context, lora, many, passages, states, texts
from lmlite.benchmark.measure import Measure
from lmlite.benchmark.process import Bench
from lmlite.benchmark.report import markdown
from lmlite.config import nearest
from lmlite.errors import UserError
from lmlite.record import run_record
from lmlite.workdir import write_text

CASES = {
    "icl": in_context.case,
    "passages": passages.case,
    "texts": texts.case,
    "lora": lora.case,
    "compile": lora.first_step,
    "many": many.case,
    "states": states.case,
    "generate": generate.case,
}


def benchmark(config: ConfigDict, workdir: Path, peers: Path) -> None:
    """Runs config.cases; writes benchmark.json and report.md after each, anew at every run.

    peers: the folder of the peers' scripts. Raises UserError for an unknown case, a missing
    interpreter, or a process that fails.
    """
    _check(config)
    logs, measures = workdir / "logs", []
    logs.mkdir(exist_ok=True)
    record = run_record() | {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(dir=workdir, prefix="scratch-") as scratch:
        bench = Bench(config, peers, Path(scratch), logs)
        for name in config.cases:
            measures += CASES[name](bench)
            _write(workdir, record, bench, measures)
    print(markdown(record, bench, measures), f"report: {workdir / 'report.md'}", sep="\n")


def _check(config: ConfigDict) -> None:
    for name in config.cases:
        if name not in CASES:
            raise UserError(f"cases names {name!r}; the nearest case is {nearest(name, CASES)!r}")
    python = config.peers_python
    if python and not os.access(Path(python).expanduser(), os.X_OK):
        raise UserError(f"peers_python={python} is no program; name an environment's bin/python")


def _write(workdir: Path, record: dict, bench: Bench, measures: list[Measure]) -> None:
    result = record | {
        "peers": bench.versions,
        "measures": [measure.row() for measure in measures],
        "processes": bench.processes,
    }
    write_text(workdir / "benchmark.json", json.dumps(result, indent=1) + "\n")
    write_text(workdir / "report.md", markdown(record, bench, measures))
