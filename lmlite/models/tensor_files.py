"""Tensors in a directory of safetensors files, single or in shards with an index, both ways."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lmlite.errors import UserError
from lmlite.models.json_file import read_json, write_json
from lmlite.models.weights import Stored

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def read(directory: Path) -> dict[str, Stored]:
    """Every tensor of the directory by name; the files stay open as long as the result lives.

    Raises UserError for a missing or damaged file.
    """
    stored = {}
    for file in _names(directory):
        opened = _open(directory / file)
        for name in opened.keys():
            shape = tuple(opened.get_slice(name).get_shape())
            stored[name] = Stored(shape, partial(opened.get_tensor, name))
    return stored


def write(
    directory: Path,
    bytes_of: dict[str, int],
    arrays: Callable[[list[str]], Iterable[tuple[str, np.ndarray]]],
    limit: int,
) -> None:
    """Writes shards of at most `limit` bytes and, if there are several, their index.

    bytes_of: tensor name -> its size; arrays: makes some of them by name, a shard at a time.
    Weights that were in the directory before are replaced.
    """
    old = {*directory.glob("model*.safetensors"), *directory.glob(_INDEX)}
    shards = _shards(bytes_of, limit)
    written, where = set(), {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else _SINGLE
        draft = directory / (file + ".part")
        save_file(dict(arrays(shard)), draft, metadata={"format": "pt"})
        os.replace(draft, directory / file)
        written.add(directory / file)
        where |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = {"total_size": sum(bytes_of.values())}
        write_json(directory / _INDEX, {"metadata": total, "weight_map": where})
        written.add(directory / _INDEX)
    for path in old - written:
        path.unlink()


def _names(directory: Path) -> list[str]:
    """The names of the directory's files."""
    path = directory / _INDEX
    if not path.exists():
        return [_SINGLE]
    where = read_json(path).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise UserError(f"{path} has no 'weight_map', which names the shards; fetch it again")
    return sorted(set(where.values()))


def _open(path: Path):
    try:
        # Read, not mapped: mapped pages would count as memory next to the arrays made of them.
        return safe_open(path, framework="numpy", backend="pread")
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; weights are read from safetensors files") from e
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path} is damaged ({e}); fetch it again") from e


def _shards(bytes_of: dict[str, int], limit: int) -> list[list[str]]:
    """Names in order, as many to a shard as fit in `limit` bytes, at least one."""
    shards, room = [], 0
    for name, size in bytes_of.items():
        if size > room or not shards:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards
