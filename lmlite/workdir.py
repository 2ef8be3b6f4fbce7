"""What a run leaves behind: atomic files, resumable records, the config and where it ran.

Every write replaces a whole file: a run killed at any moment leaves the old file or the new one.
Records are small (some megabytes) and added an arm at a time, so rewriting them costs less than a
measurable moment and makes each `add` all or nothing, which appending lines would not.
"""

import json
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lmlite.config import leaves, to_json
from lmlite.errors import UserError
from lmlite.record import run_record

CONFIG = "config.json"


def cache_folder() -> Path:
    """$LMLITE_CACHE, or ~/.cache/lmlite: downloads and compiled programs, safe to delete."""
    return Path(os.environ.get("LMLITE_CACHE") or "~/.cache/lmlite").expanduser().absolute()


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces the file atomically; makes its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces the file atomically with UTF-8 text."""
    write_bytes(path, text.encode())


class Records:
    """A `.jsonl` file: one JSON object a line, added to by one process."""

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict]:
        """All rows, in order; UserError if a line is not a JSON object (the file was edited)."""
        text = self.path.read_text() if self.path.exists() else ""
        return [self._row(line, number) for number, line in enumerate(text.splitlines(), 1)]

    def add(self, rows: list[dict]) -> None:
        """Adds all rows or, if anything goes wrong, none; arrays become lists, NaN is refused."""
        lines = [json.dumps(row, allow_nan=False, default=lambda x: x.tolist()) for row in rows]
        before = self.path.read_text() if self.path.exists() else ""
        write_text(self.path, before + "".join(f"{line}\n" for line in lines))

    def _row(self, line: str, number: int) -> dict:
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{self.path}:{number} is not JSON; mend or delete that line"
            ) from error


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json as a run starts or resumes.

    It holds `config`, the fields of `run_record`, soon `data` (see `write_data`), and under
    `earlier` the same fields of the starts that this one resumes, with the `config` of those that
    had less. A run may be resumed with more than it had: arms and tasks beside its own, points
    among its own, and seeds and draws after its own; one that left nothing but its config (a wrong
    column, say) may be started with any other. Raises UserError if the workdir can't be written, or
    holds a run of a config that differs in anything else.
    """
    path, now = workdir / CONFIG, to_json(config)
    try:
        earlier = _earlier(path, now) if path.exists() else []
        record = {"config": now} | run_record() | {"earlier": earlier}
        write_text(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} can't be written ({error.strerror}); name another folder"
        ) from error


def _earlier(path: Path, now: dict) -> list[dict]:
    """The starts that config.json has on record; UserError if `now` does not go on from them."""
    before = read_config(path.parent)
    files = (other for other in path.parent.rglob("*") if other.is_file())
    if all(other.name == CONFIG for other in files):
        return []  # it failed before it left anything
    config, earlier = before.pop("config"), before.pop("earlier")
    new, old = leaves(now), leaves(_grown(config, now))
    for name in new | old:
        was, is_now = old.get(name, "(absent)"), new.get(name, "(absent)")
        if was != is_now:
            raise UserError(
                f"config.{name} is {is_now!r} but the run in {path.parent} has {was!r};"
                f" name another --workdir or delete that one"
            )
    return [*earlier, before if config == now else before | {"config": config}]


def _grown(old: dict, new: dict) -> dict:
    """`old` with what `new` adds to it in the ways that a resumed run may."""
    grown = dict(old)
    for name in old.keys() & new.keys():
        was, is_now = old[name], new[name]
        if name in ("arms", "tasks") and isinstance(was, dict) and isinstance(is_now, dict):
            grown[name] = is_now | was
        elif name in ("seeds", "draws", "points") and isinstance(was, list):
            longer = isinstance(is_now, list) and _kept(name, was, is_now) == was
            grown[name] = is_now if longer else was
    return grown


def _kept(name: str, old: list, new: list) -> list:
    """What `new` has in place of `old`: its beginning, or the points of the same folders."""
    if name != "points":
        return new[: len(old)]
    labels = {point[0] for point in old}
    return [point for point in new if point[0] in labels]


def write_data(workdir: Path, fingerprint: str) -> None:
    """Adds `data` to config.json: what tells what this start works on from anything else.

    Raises UserError where a start that it resumes had other data: a file that has changed.
    """
    record = read_config(workdir)
    if {one["data"] for one in record["earlier"] if "data" in one} - {fingerprint}:
        raise UserError(
            f"the model, rows, texts or prompts have changed since the run in {workdir} began (or "
            "lmlite's record of them has), and both would be mixed; name another --workdir or "
            "delete that one"
        )
    write_text(workdir / CONFIG, json.dumps(record | {"data": fingerprint}, indent=1) + "\n")


def read_config(workdir: Path) -> dict[str, Any]:
    """What `write_config` wrote; UserError where config.json is something else."""
    path = workdir / CONFIG
    try:
        record = json.loads(path.read_text())
        ours = isinstance(record["config"], dict) and isinstance(record["earlier"], list)
    except (KeyError, TypeError, json.JSONDecodeError):
        ours = False
    if not ours:
        raise UserError(f"{path} is not a run's config.json; name another --workdir")
    return record


def event_writer(workdir: Path, run: str):
    """A tensorboardX SummaryWriter on `workdir/tb/run`; close it, or use it as a context."""
    from tensorboardX import SummaryWriter

    return SummaryWriter(logdir=str(workdir / "tb" / run))
