"""Whether written programs pass their tests. They run in processes of their own, within limits.

This is no sandbox against malice: a separate process, without network where the system allows it,
with limits on time, memory and what it may write, in a folder that is thrown away. It runs only
where the user has said so.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

SECONDS, MEMORY, FILE_BYTES, PROCESSES = 10, 2**30, 2**20, 64
# What a program cannot reach any more once this has run; its own code follows.
_GUARD = """
import socket
def _refused(*args, **kwargs):
    raise OSError("no network here")
socket.socket = socket.create_connection = _refused
"""


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that one of k of the samples passes, estimated without bias from all of them.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    if samples - right < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - right + 1, samples + 1)))


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether `program` ends by itself without an error, in time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*_without_network(), sys.executable, "-I", "-c", _GUARD + program]
        try:
            done = subprocess.run(
                command, cwd=folder, env={"PATH": os.defpath}, preexec_fn=_limit,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                timeout=seconds, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def passed(programs: Sequence[str]) -> list[bool]:
    """`passes` of each."""
    return [passes(program) for program in programs]


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _without_network() -> list[str]:
    """The command that takes the network away, where this user may give it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    command = [unshare, "--map-root-user", "--net"]
    tried = subprocess.run([*command, "true"], capture_output=True)
    return command if tried.returncode == 0 else []
