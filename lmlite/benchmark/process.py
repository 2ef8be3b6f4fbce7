"""Measurements in fresh processes: a job goes in as a JSON file, an answer comes out as one."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lmlite.config import ROOT, to_json
from lmlite.errors import UserError


class Answer(NamedTuple):
    """numbers: what was measured, `process_seconds` (start to exit) among them; values: results."""

    numbers: dict[str, float]
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a case runs in.

    scripts: the folder of the peers' scripts. scratch: a folder for models and compiled programs.
    logs: a folder for what the processes print. processes: filled with a record of each. versions:
    filled with those of the peers' packages.
    """

    config: ConfigDict
    scripts: Path
    scratch: Path
    logs: Path
    processes: list[dict] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def model(self) -> str:
        """The model as a Hugging Face directory, for peers."""
        directory = str(self.scratch / "model")
        self.ours("export_model", directory=directory)
        return directory

    @property
    def has_peers(self) -> bool:
        """Whether there are peers to measure."""
        return bool(self.config.peers_python)

    def ours(self, measurement: str, cache: str = "", **job: Any) -> Answer:
        """Runs a measurement of lmlite.benchmark.__main__ on `job` and the config.

        cache: the name of a folder of compiled programs, empty when first named; '' for none.
        Raises UserError where the process fails.
        """
        job |= {"measurement": measurement, "config": to_json(self.config)}
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / "programs" / cache),
            "JAX_ENABLE_COMPILATION_CACHE": str(bool(cache)).lower(),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        return self._run(measurement, [sys.executable, "-m", "lmlite.benchmark"], job, environment)

    def peer(self, script: str, **job: Any) -> Answer | None:
        """Runs scripts/SCRIPT.py under the peers' interpreter; None where there is none.

        Raises UserError where the process fails.
        """
        if not self.has_peers:
            return None
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)  # its packages are ours, not the peers'
        python = str(Path(self.config.peers_python).expanduser().absolute())
        command = [python, str(self.scripts / f"{script}.py")]
        return self._run(script, command, job, environment)

    def _run(self, name: str, command: list[str], job: dict, environment: dict) -> Answer:
        stem = f"{len(self.processes):02d}-{name}"
        files = [self.scratch / f"{stem}-job.json", self.scratch / f"{stem}-answer.json"]
        files[0].write_text(json.dumps(job))
        log = self.logs / f"{stem}.log"
        print(f"{stem} ...", flush=True)
        start = time.perf_counter()
        with log.open("wb") as out:
            done = subprocess.run(
                [*command, *map(str, files)], env=environment, stdout=out, stderr=out
            )
        seconds = time.perf_counter() - start
        if done.returncode:
            lines = log.read_text(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "no output")
            raise UserError(f"{stem} failed (status {done.returncode}): {last.strip()}; see {log}")
        answer = json.loads(files[1].read_text())
        self.versions.update(answer.get("versions", {}))
        numbers = answer["numbers"] | {"process_seconds": seconds}
        self.processes.append({"process": name, **numbers})
        return Answer(numbers, answer["values"])
