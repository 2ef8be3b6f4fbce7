"""What the tests share: JAX on CPU, compiled programs kept between runs, fresh interpreters."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmlite.workdir import cache_folder

ROOT = Path(__file__).resolve().parents[1]

# Before any test imports jax; set in the environment so that subprocesses share them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most of the suite's time is compilation, and tiny models do not need LLVM's best code.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


_MOST_MAPS = 20_000  # of memory; Linux lets a process have 65,530, and a program takes hundreds


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drops what JAX has compiled before a process that runs many modules has no room for more."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def run_python(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """`run_python(*arguments, **environment)`: a new interpreter in tmp_path, with text output.

    Eight devices: `run_python("-c", code, XLA_FLAGS="--xla_force_host_platform_device_count=8")`.
    """

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
