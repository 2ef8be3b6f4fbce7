"""Programs that are run: which pass, and what they cannot reach."""

import time

import pytest

from lmlite.metrics import code

EARLY = [
    "exit()",
    "quit()",
    "import sys; sys.exit(0)",
    "raise SystemExit",
    "import os; os._exit(0)",
]
RIGHT = {
    "from the future": "from __future__ import annotations\ndef f(x: Unknown): pass",
    "ssl": "import ssl, urllib.request, http.server",
    "asyncio": "import asyncio\nassert asyncio.run(asyncio.sleep(0, 3)) == 3",
    "long": f"x = '{'é' * 2**17}'\nassert len(x) == {2**17}",
    "a cookie, ignored": "# coding: latin-1\nassert len('é') == 1",
    "__main__": "import pickle\nclass A: pass\nassert __name__ == '__main__'\npickle.dumps(A())",
    "temporary files": "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n"
    " open(d + '/a', 'w').write('1')\nwith tempfile.TemporaryFile() as f: f.write(b'1')",
    "files": "import os, shutil\nos.makedirs('a/b')\nopen('a/b/c', 'w').write('1')\n"
    "os.rename('a/b/c', 'a/d')\nos.remove('a/d')\nshutil.rmtree('a')\nassert not os.listdir()",
    "home": "import os\nopen(os.path.expanduser('~/.settings'), 'w')",
    "pipes": "import os\nr, w = os.pipe()\nwith open(w, 'w') as f: f.write('1')\n"
    "open(os.devnull, 'w').write('1')\nassert os.read(r, 9) == b'1'",
    "sqlite": "import sqlite3\nsqlite3.connect(':memory:').execute('select 1')",
    "threads": "import threading\nt = threading.Thread(target=print)\nt.start(); t.join()",
    "numpy": "import numpy as np\nassert np.ones(3).sum() == 3",
    "no input": "import sys\nassert sys.stdin.read() == '' and print('a' * 2**17) is None",
}
OUTSIDE = [
    "open(p + '/kept', 'w')",
    "open(p + '/new', 'x')",
    "os.open(p + '/new', os.O_CREAT)",
    "os.remove(p + '/kept')",
    "os.chdir(p); os.remove('kept')",
    "os.remove('kept', dir_fd=os.open(p, os.O_RDONLY))",
    "os.symlink(p, 'in'); open('in/kept', 'w')",
    "os.link(p + '/kept', 'in')",
    "os.symlink('a', p + '/new')",
    "os.rename(p + '/kept', 'kept')",
    "os.mkdir(p + '/new')",
    "os.truncate(p + '/kept', 0)",
    "os.chmod(p + '/kept', 0)",
    "os.fchmod(os.open(p + '/kept', os.O_RDONLY), 0)",
    "os.utime(p + '/kept', (0, 0))",
    "os.setxattr(p + '/kept', b'user.x', b'1'); os.remove(p + '/kept')",
    "os.mkfifo(p + '/new')",
    "import posix; posix.mkfifo(p + '/new')",
    "os.mknod(p + '/new')",
    "pathlib.Path(p, 'kept').unlink()",
    "shutil.rmtree(p)",
    "shutil.move(p, 'in')",
    "sqlite3.connect(p + '/new').execute('create table t (x)')",
]
REFUSED = [
    "os.fork()",
    "os.system('true')",
    "subprocess.run(['true'])",
    "os.posix_spawn('/bin/true', ['true'], {})",
    "os.kill(os.getppid(), 0)",
    "os.killpg(0, 0)",
    "socket.socket().bind(('127.0.0.1', 0))",
    "socket.socket(type=socket.SOCK_DGRAM).sendto(b'1', ('127.0.0.1', 9))",
    "socket.getaddrinfo('localhost', 80)",
]
# A process that no audit event tells of, as multiprocessing starts it.
CHILD = (
    "from multiprocessing.util import spawnv_passfds as spawn\n"
    "def start(*words): spawn(words[0].encode(), [w.encode() for w in words], [])\n"
)


@pytest.fixture(params=["namespaces", "none"])
def namespaces(request, monkeypatch):
    """With namespaces of its own, where this machine gives them, and without."""
    if request.param == "none":
        monkeypatch.setattr(code, "_namespaces", lambda: ())
    elif not code._namespaces():
        pytest.skip("no namespaces here")


@pytest.mark.parametrize("program", EARLY)
def test_an_early_exit_does_not_pass(program):
    assert not code.passes(program + "\nassert False")


@pytest.mark.parametrize("program", RIGHT.values(), ids=RIGHT)
def test_right_programs_pass(program, namespaces):
    assert code.passes(program)


@pytest.mark.parametrize("program", ["\0", "'\ud800'", "(" * 10**5, "-" * 10**6 + "1"])
def test_what_cannot_be_encoded_or_compiled_does_not_pass(program):
    assert code.passed([program, "x = 1"]) == [False, True]


def test_an_error_after_the_end_does_not_pass():
    assert not code.passes("import atexit, os\natexit.register(os._exit, 1)")


@pytest.mark.parametrize("statement", OUTSIDE)
def test_files_outside_are_kept(statement, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("here")
    before = kept.stat()
    imports = "import os, pathlib, shutil, sqlite3"
    assert not code.passes(f"{imports}\np = {str(tmp_path)!r}\n{statement}")
    assert list(tmp_path.iterdir()) == [kept] and kept.read_text() == "here"
    after = kept.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)


@pytest.mark.parametrize("statement", REFUSED)
def test_processes_signals_and_network_are_refused(statement, namespaces):
    program = f"import os, socket, subprocess\ntry: {statement}\nexcept PermissionError: pass"
    assert code.passes(f"{program}\nelse: raise AssertionError")


@pytest.mark.parametrize("ends", ["", "while True: pass"])
def test_children_end_with_their_program(ends, namespaces, tmp_path):
    program = _with_a_child("start('/bin/sh', '-c', beats)", tmp_path / "beat")
    assert code.passes(program + ends, seconds=3) is not bool(ends)
    assert _is_still(tmp_path / "beat")


@pytest.mark.skipif(not code._namespaces(), reason="no namespaces here")
def test_children_in_sessions_of_their_own_end_too_within_namespaces(tmp_path):
    start = "start('/usr/bin/setsid', '/bin/sh', '-c', beats)"
    assert code.passes(_with_a_child(start, tmp_path / "beat"))
    assert _is_still(tmp_path / "beat")


def _with_a_child(start, beat):
    """A program that ends once its child has begun to write to `beat`, ten times a second."""
    beats = f"for i in $(seq 100); do echo $i > {beat}; sleep 0.1; done"
    waits = f"import os\nwhile not os.path.exists({str(beat)!r}): pass\n"
    return f"{CHILD}beats = {beats!r}\n{start}\n{waits}"


def _is_still(beat):
    time.sleep(0.3)
    last = beat.stat().st_mtime_ns
    time.sleep(1)
    return beat.stat().st_mtime_ns == last


def test_limits_are_those_given():
    limits = {"CPU": 7, "AS": code.MEMORY, "FSIZE": code.FILE_BYTES, "CORE": 0}
    checks = [f"assert r.getrlimit(r.RLIMIT_{n}) == ({v}, {v})" for n, v in limits.items()]
    assert code.passes("\n".join(["import resource as r", *checks]), seconds=7)


@pytest.mark.parametrize("program", ["import ctypes; ctypes.string_at(0)", "import os; os.abort()"])
def test_crashes_do_not_pass(program, namespaces):
    assert not code.passes(program)
