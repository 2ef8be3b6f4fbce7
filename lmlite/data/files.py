"""Rows of local files: the readers behind the sources csv:, jsonl:, json:, parquet: and text:."""

import bz2
import contextlib
import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmlite.errors import UserError

Row = dict[str, Any]  # column name -> text, number, list or dict; a class label is its name


def _csv(path: str) -> list[Row]:
    csv.field_size_limit(2**31 - 1)  # documents are longer than the module's 131,072 characters
    with _text(path) as file:
        reader = csv.DictReader(file, strict=True)
        names = reader.fieldnames or []
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise UserError(f"{path}: {twice[0]!r} names two columns; rename one of them")
        rows = []
        for row in _checked(reader, path):
            if None in row or None in row.values():  # how DictReader marks long and short rows
                columns = ", ".join(reader.fieldnames)
                raise UserError(f"{path}:{reader.line_num}: the row does not fit columns {columns}")
            rows.append(row)
    return rows


def _checked(reader: csv.DictReader, path: str) -> Iterator[Row]:
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{path}:{reader.reader.line_num}: {error}") from error


def _jsonl(path: str) -> list[Row]:
    rows = []
    with _text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            row = _parsed(line, f"{path}:{number}")
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: not a JSON object but {line.strip()[:40]}")
            rows.append(row)
    return rows


def _json(path: str) -> list[Row]:
    with _text(path) as file:
        text = file.read()
    if not text.lstrip().startswith("["):
        return _jsonl(path)
    rows = _parsed(text, path)
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: not an array of JSON objects")
    return rows


def _parsed(text: str, place: str) -> Any:
    """What a text of JSON says. UserError, naming the place, for what is none or is half a sign."""
    try:
        found = json.loads(text)
        if "\\u" in text:  # half of a pair of escapes is valid JSON, and no text
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeError among them
        raise UserError(f"{place}: not JSON: {error}") from error
    return found


def _parquet(path: str) -> list[Row]:
    from pyarrow import ArrowException, parquet  # slow to import, and seldom needed

    try:
        return parquet.read_table(Path(path).expanduser()).to_pylist()
    except (OSError, ArrowException) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error


def _plain_text(path: str) -> list[Row]:
    folder = Path(path).expanduser()
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else [path]
    rows = []
    for file in files:
        with _text(str(file)) as lines:
            rows.append({"text": lines.read()})
    return rows


@contextlib.contextmanager
def _text(path: str) -> Iterator[Any]:
    """The lines of a file; what goes wrong in reading them is the user's to mend."""
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(Path(path).suffix, open)
    try:
        with opener(Path(path).expanduser(), "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (OSError, EOFError, UnicodeError, RuntimeError, zlib.error, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', 0) or error}") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


READERS = {
    "csv": _csv,
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "text": _plain_text,
}
