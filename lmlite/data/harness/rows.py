"""The rows of a task file's splits: local files, read as the package `datasets` reads them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmlite.data.harness.file import Fields
from lmlite.data.sources import Row, read
from lmlite.data.splits import split_of
from lmlite.errors import UserError

Numbered = list[tuple[str, Row]]  # with names that no two rows of a task share
_KINDS = ("json", "csv", "parquet", "text")
_ENDINGS = {"json": "json", "jsonl": "json", "csv": "csv", "parquet": "parquet"}


def rows_of(fields: Fields, path: Path, fractions: Sequence[tuple[str, Any]]):
    """The rows of train, dev, test and, where they are none of these, shown: by those names.

    Test is test_split or else validation_split, as in lm_eval. Train is training_split, or else
    fewshot_config.split or fewshot_split, or else a validation_split beside the test. Where none is
    left the test's rows are divided by hash, by `fractions`. Dev is a validation_split that is
    neither, and may be empty. Shown is the split of demonstrations.

    UserError: no split named, one that is not there, one without rows.
    """
    if any(isinstance(value, str) for _, value in fractions):
        raise UserError("task.split: a yaml: task names its splits itself; give fractions")
    test = fields.get("test_split") or fields.get("validation_split")
    if test is None:
        raise UserError(f"{path}: test_split and validation_split are missing; name one")
    shown = fields.get("fewshot_config", {}).get("split") or fields.get("fewshot_split")
    others = [fields.get("training_split"), shown, fields.get("validation_split")]
    train = next((split for split in others if split not in (None, test)), None)
    dev = next((split for split in others[2:] if split not in (None, test, train)), None)
    find = _finder(fields, path)
    if train is None:
        return _divided(_numbered(find, test), fractions)
    named = {"train": train, "dev": dev, "test": test}
    named["shown"] = shown if shown not in named.values() else None
    return {name: _numbered(find, split) if split else [] for name, split in named.items()}


def _numbered(find: Callable[[str], list[Row]], split: str) -> Numbered:
    return [(f"{split}-{i}", row) for i, row in enumerate(find(split))]


def _divided(rows: Numbered, fractions) -> dict[str, Numbered]:
    parts: dict[str, Numbered] = {"train": [], "dev": [], "test": []}
    first: dict[str, str] = {}  # equal rows stay together: no test item is trained on
    for name, row in rows:
        group = first.setdefault(repr(row), name)
        parts[split_of(group, fractions)].append((name, row))
    return parts


def _finder(fields: Fields, path: Path) -> Callable[[str], list[Row]]:
    """What reads a split by its name."""
    place, options = str(fields.get("dataset_path", "")), dict(fields.get("dataset_kwargs") or {})
    files = options.pop("data_files", None)
    options.pop("trust_remote_code", None)
    if options:
        raise UserError(f"{path}: dataset_kwargs.{min(options)} is not read here; leave it out")
    if ":" in place:  # a source of lmlite's, such as tfds:NAME
        name = fields.get("dataset_name")
        return lambda split: read(f"{place}/{name}:{split}" if name else f"{place}:{split}")
    if place in _KINDS and files:
        named = files if isinstance(files, dict) else {"train": files}  # one, or a list of them
        return lambda split: _file_rows(place, named, split, path)
    folder = _local(place, path)
    if (name := fields.get("dataset_name", "default")) != "default":
        raise UserError(f"{path}: dataset_name={name!r} of local data is not read; leave it out")
    if place and place not in _KINDS and folder.is_dir():
        return lambda split: _folder_rows(folder, split)
    raise UserError(
        f"{path}: dataset_path={place!r} is no local data; write its rows to files, name "
        "dataset_path: json (csv, parquet, text) and the files in dataset_kwargs.data_files"
    )


def _file_rows(kind: str, files: dict, split: str, path: Path) -> list[Row]:
    if split not in files:
        raise UserError(
            f"{path}: dataset_kwargs.data_files has no split {split!r}; it has {', '.join(files)}"
        )
    chosen = files[split] if isinstance(files[split], list) else [files[split]]
    if not all(isinstance(file, str) for file in chosen):
        raise UserError(f"{path}: dataset_kwargs.data_files.{split}={files[split]!r} is no file")
    return [row for file in chosen for row in _typed(kind, _local(file, path))]


def _folder_rows(folder: Path, split: str) -> list[Row]:
    for ending, kind in _ENDINGS.items():
        if (folder / f"{split}.{ending}").is_file():
            return _typed(kind, folder / f"{split}.{ending}")
    endings = ", ".join(f".{ending}" for ending in _ENDINGS)
    raise UserError(f"{folder} has no file {split}{endings.replace(', ', f' or {split}')}")


def _local(place: str, path: Path) -> Path:
    """A path beside the task file or, as lm_eval has it, in the working directory."""
    given = Path(place).expanduser()
    beside = path.parent / given
    return beside if beside.exists() else given


def _typed(kind: str, file: Path) -> list[Row]:
    """Rows with the types that `datasets` gives them; what a row lacks is None."""
    if kind == "text":
        whole = "".join(row["text"] for row in read(f"text:{file}"))
        lines = re.split("\r\n|\r|\n", whole)  # str.splitlines knows further ends of a line
        return [{"text": line} for line in (lines if lines[-1] else lines[:-1])]
    rows = read(f"{kind}:{file}")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = {column: [row.get(column) for row in rows] for column in columns}
    typed = {"csv": _guessed, "json": _one_type}.get(kind, list)
    values = {column: typed(cells) for column, cells in values.items()}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*values.values(), strict=True)]


def _one_type(cells: Sequence[Any]) -> list[Any]:
    """A column of whole and other numbers holds the others."""
    kinds = {type(cell) for cell in cells} - {type(None)}
    return [float(x) if type(x) is int else x for x in cells] if kinds == {int, float} else [*cells]


_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
_BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_INT = re.compile(r"\s*[+-]?\d+\s*")
_FLOAT = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[iI]nf(inity)?)\s*")


def _guessed(texts: Sequence[str]) -> list[Any]:
    """A csv column as pandas types it: numbers or truth values where all cells are, else texts."""
    known = [text for text in texts if text not in _MISSING]
    whole = len(known) == len(texts) and all(_INT.fullmatch(text) for text in known)
    if known and all(_FLOAT.fullmatch(text) for text in known):
        kind: Callable[[str], Any] = int if whole else float
    elif known and all(text in _BOOLS for text in known):
        kind = _BOOLS.__getitem__
    else:
        kind = str
    return [None if text in _MISSING else kind(text) for text in texts]
