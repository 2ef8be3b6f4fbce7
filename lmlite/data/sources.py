"""Rows of a data set, by the name of its source.

    tfds:NAME[/CONFIG][:SPLIT]   a TFDS data set, kept where TFDS keeps its own ($TFDS_DATA_DIR)
    package:NAME[:SPLIT]         one of `lmlite.data.builders`, prepared once into lmlite's cache
    csv:PATH                     comma separated, the columns named in its first line
    jsonl:PATH                   one JSON object a line
    text:PATH                    a text file, or a folder of *.txt: a row a file, its column `text`

Files are UTF-8 and may be compressed (.gz, .bz2). SPLIT may be a TFDS slice, as 'train[:80%]'.
TFDS data are array_record files, which need no TensorFlow to write or to read.
"""

import bz2
import contextlib
import csv
import gzip
import importlib
import io
import json
import os
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmlite.config import nearest
from lmlite.data import builders
from lmlite.data.packages import cache_dir, locked
from lmlite.errors import UserError

Row = dict[str, Any]  # column name -> text, number, list or dict; a class label is its name


def read(source: str) -> list[Row]:
    """All rows of a source, in its own order.

    UserError: unknown kind of source or name, missing or malformed file, failing download,
    a split that does not exist or must be chosen, no rows.
    """
    kind, _, name = source.partition(":")
    if kind not in READERS or not name:
        kinds = ", ".join(f"{kind}:..." for kind in READERS)
        raise UserError(f"there is no source {source!r}; name one of {kinds}")
    rows = READERS[kind](name)
    if not rows:
        raise UserError(f"{source} is empty; it needs at least one row")
    return rows


def _csv(path: str) -> list[Row]:
    csv.field_size_limit(2**31 - 1)  # documents are longer than the module's 131,072 characters
    with _text(path) as file:
        reader = csv.DictReader(file, strict=True)
        rows = []
        for row in reader:
            if None in row or None in row.values():  # how DictReader marks long and short rows
                columns = ", ".join(reader.fieldnames)
                raise UserError(f"{path}:{reader.line_num}: the row does not fit columns {columns}")
            rows.append(row)
    return rows


def _jsonl(path: str) -> list[Row]:
    rows = []
    with _text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: not a JSON object but {line.strip()[:40]}")
            rows.append(row)
    return rows


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
    except (OSError, EOFError, UnicodeError, zlib.error, csv.Error) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', 0) or error}") from error


def _tfds(name: str) -> list[Row]:
    dataset, _, split = name.partition(":")
    return _prepared(lambda: _tfds_builder(dataset), split, f"tfds:{dataset}")


def _tfds_builder(dataset: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(dataset, try_gcs=False, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except (tfds.core.DatasetNotFoundError, ImportError) as error:
        known = nearest(dataset, tfds.list_builders(with_community_datasets=False))
        raise UserError(
            f"TFDS has no data set {dataset!r} that builds without TensorFlow and is not prepared "
            f"in its data folder; the nearest is {known!r}"
        ) from error


def _package(name: str) -> list[Row]:
    dataset, _, split = name.partition(":")
    known = [module.name for module in pkgutil.iter_modules(builders.__path__)]
    if dataset not in known:
        near = nearest(dataset, known)
        raise UserError(f"there is no data set package:{dataset}; the nearest is package:{near}")
    module = importlib.import_module(f"{builders.__name__}.{dataset}")
    folder = cache_dir() / "tfds"
    return _prepared(lambda: module.Builder(data_dir=folder), split, f"package:{dataset}")


def _prepared(make: Callable[[], Any], split: str, source: str) -> list[Row]:
    """The rows of a TFDS builder, which first makes its files if they are not there.

    The builder is made under the lock: one made before another process is done with the files
    would not know them.
    """
    try:
        with locked(source.replace(":", ".").replace("/", ".")):
            builder = make()
            if not builder.data_path.exists():
                _prepare(builder, source)
    except UserError:
        raise
    except Exception as error:  # anything: a data set's own code, its host, the disk
        raise UserError(f"cannot prepare {source}: {_first_line(error)}") from error
    split = split or _only_split(builder, source)
    try:
        data = builder.as_data_source(split=split)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"cannot read split {split!r} of {source}: {_first_line(error)}") from error
    features = builder.info.features
    return [_plain(row, features) for row in data.__getitems__(range(len(data)))]


def _prepare(builder: Any, source: str) -> None:
    import tensorflow_datasets as tfds

    print(f"preparing {source} ...", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints where it writes
        builder.download_and_prepare(file_format="array_record")


def _only_split(builder: Any, source: str) -> str:
    splits = list(builder.info.splits)
    if len(splits) != 1:
        raise UserError(
            f"{source} has the splits {', '.join(splits)}; name one, as {source}:{splits[0]}, or "
            f"write {source}:{{split}} and let task.split name one for each of train, dev and test"
        )
    return splits[0]


def _plain(value: Any, feature: Any) -> Any:
    """A TFDS value as plain Python: text for bytes, a name for a class, lists for arrays."""
    if isinstance(value, dict):
        return {key: _plain(item, feature[key]) for key, item in value.items()}
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else str(value)  # -1: a label held back
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item, None) for item in value] if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


READERS = {"tfds": _tfds, "package": _package, "csv": _csv, "jsonl": _jsonl, "text": _plain_text}
