"""Debian's package index and its translated descriptions, by the archive's own hashes.

The release file names the sha256 of every index; what a mirror serves is checked against it, and
its date names the folder of the cache. A point release of the suite may change some rows.
"""

import bz2
import hashlib
import lzma
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lmlite.data.packages import cache_dir, locked
from lmlite.errors import UserError

MIRROR = "https://deb.debian.org/debian/dists/bookworm"
PACKAGES = "main/binary-amd64/Packages"
_TIMEOUT = 60  # seconds
_OPENERS = {"xz": lzma.decompress, "bz2": bz2.decompress}


class Described(NamedTuple):
    """A description: the package it is of, the source package, its section, and its text."""

    package: str
    source: str
    section: str
    digest: str
    synopsis: str
    paragraphs: tuple[str, ...]


def described() -> Iterator[Described]:
    """The packages with their English descriptions, each description once."""
    english = dict(translations("en"))
    seen = set()
    for fields in _records(_index(PACKAGES)):
        digest = fields.get("Description-md5", "")
        if digest in english and digest not in seen:
            seen.add(digest)
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            yield Described(fields["Package"], source, fields["Section"], digest, *english[digest])


def translations(language: str) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    """(digest of the English description, (synopsis, paragraphs)) in a language such as 'pt_BR'."""
    for fields in _records(_index(f"main/i18n/Translation-{language}")):
        text = fields[f"Description-{language}"]
        synopsis, _, rest = text.partition("\n")
        yield fields["Description-md5"], (synopsis.strip(), tuple(_paragraphs(rest)))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of running text; lists and other lines set off by two spaces are left out."""
    for block in re.split(r"\n \.\s*\n", "\n" + text):
        lines = [line for line in block.splitlines() if line.strip()]
        if lines and not any(line.startswith("  ") for line in lines):
            yield " ".join(line.strip() for line in lines)


def _records(text: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph of a control file; lines that go on keep their line breaks."""
    for block in text.split("\n\n"):
        fields, name = {}, ""
        for line in block.splitlines():
            if line.startswith((" ", "\t")):
                fields[name] += "\n" + line
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def _index(path: str) -> str:
    """An index of the current release, from the cache or the mirror."""
    with locked("debian"):
        folder = cache_dir() / "debian"
        release = folder / "InRelease"
        if not release.exists():
            _write(release, _get("InRelease"))
        named = re.search(
            rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(path)}\.(xz|bz2)$", release.read_text(), re.M
        )
        if named is None:
            raise UserError(f"Debian's release has no index {path}; choose another language")
        wanted, kind = named.groups()
        file = folder / wanted
        if not file.exists():
            data = _get(f"{path.rpartition('/')[0]}/by-hash/SHA256/{wanted}")
            if (found := hashlib.sha256(data).hexdigest()) != wanted:
                raise UserError(f"{MIRROR}/{path} has sha256 {found}, expected {wanted}")
            _write(file, data)
        return _OPENERS[kind](file.read_bytes()).decode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _get(path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{MIRROR}/{path}", timeout=_TIMEOUT) as answer:
            return answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise UserError(f"cannot fetch {MIRROR}/{path}: {error}; is it reachable?") from error
