"""When, where and by what a process runs: what is written down with every result."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lmlite.config import ROOT

PACKAGES = ("lmlite", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def run_record() -> dict[str, Any]:
    """When, where and by what command this process runs: versions, devices, processor, commit."""
    import jax  # not at the top: `--help` and config errors come without it

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "platform": f"{jax.default_backend()} on {platform.platform()}",
        "processor": f"{os.cpu_count()} x {_processor()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # lmlite run from a clone that is not installed


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the clone lmlite runs from, '-dirty' if it has changes; None outside a clone.

    ROOT itself must be the clone: an installed lmlite may lie inside another project's.
    """
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None  # no git on this machine
    return shown.stdout.strip() or None
