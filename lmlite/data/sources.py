"""Rows of a data set, by the name of its source.

    tfds:NAME[/CONFIG][:SPLIT]   a TFDS data set, kept where TFDS keeps its own ($TFDS_DATA_DIR)
    package:NAME[:SPLIT]         one of `lmlite.data.builders`, prepared once into lmlite's cache
    csv:PATH                     comma separated, the columns named in its first line
    jsonl:PATH                   one JSON object a line
    json:PATH                    the same, or a JSON array of objects
    parquet:PATH                 a Parquet file
    text:PATH                    a text file, or a folder of *.txt: a row a file, its column `text`

Files are UTF-8 and may be compressed (.gz, .bz2). SPLIT may be a TFDS slice, as 'train[:80%]'.
TFDS data are array_record files, which need no TensorFlow to write or to read.
"""

import contextlib
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

from lmlite.config import nearest
from lmlite.data import builders, files
from lmlite.data.files import Row, first_line
from lmlite.data.packages import cache_dir, locked
from lmlite.errors import UserError


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
        raise UserError(f"cannot prepare {source}: {first_line(error)}") from error
    split = split or _only_split(builder, source)
    try:
        data = builder.as_data_source(split=split)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"cannot read split {split!r} of {source}: {first_line(error)}") from error
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


READERS = {"tfds": _tfds, "package": _package, **files.READERS}
