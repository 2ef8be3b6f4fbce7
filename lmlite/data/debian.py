"""Debian's package index and its translated descriptions, as apt-get fetches them.

The index is that of the machine's own release (apt-get checks its signature); it is kept in the
cache beside the packages, and the system's own lists and settings stay as they are. Another
release, or a later point release, has some other rows.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from lmlite.data.packages import cache_dir, locked
from lmlite.errors import UserError

LANGUAGES = ("de", "fr", "pt_BR", "zh_CN", "it", "da")
_SETTINGS = """\
Dir::Etc::parts "{folder}/none";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Acquire::Languages {{ {languages} }};
"""


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
    for fields in _records(_index("_Packages")):
        digest = fields.get("Description-md5", "")
        if digest in english and digest not in seen:
            seen.add(digest)
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            yield Described(fields["Package"], source, fields["Section"], digest, *english[digest])


def translations(language: str) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    """(digest of the English description, (synopsis, paragraphs)) in a language such as 'pt_BR'."""
    name = language.replace("_", "%5f")  # as apt-get writes it in names of files
    for fields in _records(_index(f"_Translation-{name}")):
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


def _index(ending: str) -> str:
    """The lists whose file names end so, of all parts of the archive, one after the other."""
    with locked("debian"):
        lists = cache_dir() / "debian" / "lists"
        if not any(lists.glob("*_Packages")):
            _update()
        found = sorted(lists.glob(f"*{ending}"))
    if not found:
        raise UserError(f"the machine's package archive has no list {ending}; is it Debian's?")
    return "\n\n".join(path.read_text(encoding="utf-8") for path in found)


def _update() -> None:
    """Fetches the lists into the cache: all languages at once, for one state of the archive."""
    if shutil.which("apt-get") is None:
        raise UserError("Debian's descriptions are fetched by apt-get, which is not here")
    folder = cache_dir() / "debian"
    for name in ("none", "cache", "lists/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    languages = "".join(f'"{code}"; ' for code in ("en", *LANGUAGES))
    settings = folder / "apt.conf"
    settings.write_text(_SETTINGS.format(folder=folder, languages=languages))
    print("fetching Debian's package lists (30 MB) ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "APT_CONFIG": str(settings), "LC_ALL": "C"}
    done = subprocess.run(
        ["apt-get", "update"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode or not any((folder / "lists").glob("*_Packages")):
        why = re.search(r"^[EW]: .+", done.stderr, re.M)
        shutil.rmtree(folder / "lists")
        raise UserError(f"apt-get update failed: {why[0] if why else done.returncode}")
