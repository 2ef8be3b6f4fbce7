"""Whether written programs pass their tests: each runs in a process of its own, within limits.

Held against accidents:
- time, and memory and the size of any one file, a process;
- an audit hook, which cannot be taken off again, refuses what Python tells of: to write, move or
  remove files outside a folder that is thrown away, to start processes, to send signals, to use
  the network;
- what it starts nevertheless is killed with it, in its process group;
- where this user may unshare namespaces, there is no network at all, no other process can be
  signalled, and nothing it started outlives it, in whatever process group.

Not held: files outside can be read; how many files it writes, so how much of the disk; and all
that goes round Python's audit events, as C libraries may (ctypes, extensions). So this is no guard
against malice: run what you do not trust in a container. Programs run only where the user has said
so.
"""

import contextlib
import functools
import math
import os
import posix
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence

SECONDS, MEMORY, FILE_BYTES = 10, 2**30, 2**20
# There is no limit on processes (RLIMIT_NPROC): it counts all that this user runs, so that right
# programs could not start a thread on a busy machine, and does not bind root.
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = frozenset(
    "os.exec os.fork os.forkpty os.posix_spawn os.spawn os.system subprocess.Popen "
    "os.kill os.killpg socket.bind socket.connect socket.getaddrinfo socket.gethostbyaddr "
    "socket.gethostbyname socket.sendmsg socket.sendto socket.sethostname".split()
)
# Events that change files: where among their arguments a path is, and the folder it starts from.
_CHANGES = {
    "os.chmod": [(0, 2)],
    "os.chown": [(0, 3)],
    "os.link": [(0, 2), (1, 3)],
    "os.mkdir": [(0, 2)],
    "os.remove": [(0, 1)],
    "os.removexattr": [(0, None)],
    "os.rename": [(0, 2), (1, 3)],
    "os.rmdir": [(0, 1)],
    "os.setxattr": [(0, None)],
    "os.symlink": [(1, 2)],
    "os.truncate": [(0, None)],
    "os.utime": [(0, 3)],
    "sqlite3.connect": [(0, None)],
}


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that one of k of the samples passes, estimated without bias from all of them.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv:2107.03374, equation 1.
    """
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - right + 1, samples + 1))


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether `program` runs to its end without an error, in time.

    One that exits by itself (exit(), os._exit(0), unittest.main()) does not come to its end; one
    that cannot be encoded or compiled does not pass either. Raises OSError if no process starts.
    """
    token = os.urandom(16).hex().encode()  # only who has come to the end writes it
    try:
        sent = b"%s\n%d\n%s" % (token, math.ceil(seconds), program.encode())
    except UnicodeEncodeError:
        return False
    # What is left in the folder by a process that is just being killed must not stop the rest.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _started(folder) as run:
        try:
            return run.communicate(sent, timeout=seconds)[0] == token and run.returncode == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


def passed(programs: Sequence[str]) -> list[bool]:
    """`passes` of each."""
    return [passes(program) for program in programs]


def _started(folder: str) -> subprocess.Popen:
    """This file as a script, in `folder`, which is all that it may write to."""
    command = [*_namespaces(), sys.executable, "-I", "-B", __file__]
    places = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder}
    # A thread a core takes more address space than there is, on a machine of many cores.
    env = places | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=env, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@functools.cache
def _namespaces() -> tuple[str, ...]:
    """The command that takes network and other processes away, where this user may give it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    tried = subprocess.run([*command, "true"], capture_output=True)
    return command if tried.returncode == 0 else ()


def _limit(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(home: str, event: str, args: tuple) -> None:
    """The audit hook: PermissionError for what would reach out of the folder `home`."""
    reached = [(args[p], -1 if d is None else args[d]) for p, d in _CHANGES.get(event, ())]
    if event == "open" and not isinstance(args[0], int) and args[2] & _WRITES:
        reached = [(args[0], -1)]
    if event in _NEVER or not all(_within(home, *place) for place in reached):
        raise PermissionError(f"{event} is refused to this program")


def _within(home: str, path: str | bytes | os.PathLike | int, start: int) -> bool:
    """Whether `path`, from the open folder `start` (-1: the working directory), is in `home`."""
    if isinstance(path, int):
        start, path = path, ""
    place = os.path.join("" if start == -1 else f"/proc/self/fd/{start}", os.fsdecode(path))
    place = os.path.realpath(place)
    return place == os.devnull or f"{place}/".startswith(f"{home}/")


def _guarded() -> None:
    """Run the program on stdin within the limits, and write its token once its end is reached."""
    token, seconds, program = sys.stdin.buffer.read().split(b"\n", 2)
    end = os.dup(1)
    os.dup2(2, 1)  # what the program prints goes nowhere
    _limit(int(seconds))
    code = compile(program.decode(), "<program>", "exec", dont_inherit=True)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    for name in ("mkfifo", "mknod"):  # which make files without an audit event
        for module in (os, posix):
            vars(module).pop(name, None)
    sys.addaudithook(functools.partial(_refuse, os.path.realpath(".")))
    exec(code, vars(main))
    os.write(end, token)


if __name__ == "__main__":
    _guarded()
