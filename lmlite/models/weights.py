"""Stored tensors to parameter trees and back, through one table of module names.

A table maps parameter modules to the names of a file format, with `{i}` for the layer:
`{"layers_{i}/attn/q": "model.layers.{i}.self_attn.q_proj"}`. Modules that share a name are stored
joined along their output axis, in the table's order (GPT-2's `c_attn`). An entry may also be a
single parameter, with its whole stored name: `{"head_bias": "final_logits_bias"}`.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lmlite.errors import UserError
from lmlite.models.quantized import held
from lmlite.models.tokens import Tokens

_SUFFIX = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


class Stored(NamedTuple):
    """A tensor that is still in its file: its shape there, and a function that reads it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def shapes(module) -> dict[str, tuple[int, ...]]:
    """Parameter path -> shape of a Linen module on token ids; nothing is computed."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    tree = jax.eval_shape(module.init, jax.random.key(0), ids, Tokens(ids, ids, ids))
    return {path: leaf.shape for path, leaf in flatten_dict(tree["params"], sep="/").items()}


def group(table: dict[str, str], paths) -> dict[str, list[str]]:
    """Stored tensor name -> the parameter paths it holds, in the order they are joined."""
    order = {entry: rank for rank, entry in enumerate(table)}

    def split(path):
        """The entry of the table that names the parameter, and its name."""
        layer = re.search(r"layers_(\d+)", path)
        entry = re.sub(r"layers_\d+", "layers_{i}", path)
        if entry in table:
            return entry, table[entry]
        entry, _, leaf = entry.rpartition("/")
        return entry, f"{table[entry].format(i=layer and layer[1])}.{_SUFFIX[leaf]}"

    names: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: order[split(path)[0]]):
        names.setdefault(split(path)[1], []).append(path)
    return names


def transpose_kernels(path: str, array: np.ndarray) -> np.ndarray:
    """Linear weights are stored [out, in] and used [in, out]; its own inverse, and a view."""
    return array.T if path.endswith("/kernel") else array


def load(
    stored: dict[str, Stored],
    names: dict[str, list[str]],
    sizes: dict[str, tuple[int, ...]],
    dtype: str,
    orient: Callable[[str, np.ndarray], np.ndarray] = transpose_kernels,
    quantize: str = "",
) -> dict:
    """Reads each named tensor once, straight to `dtype`, into a nested parameter tree.

    stored: tensors by name; names: what `group` gave; sizes: what `shapes` gave; orient: turns a
    stored array into the axes of its parameters, given the first one's path. quantize:
    'int8' or 'nf4' holds the layers' kernels so (`lmlite.models.quantized`). Large tensors come
    first, so that their temporary copy is made while little else is held.
    Raises UserError for a missing, superfluous or misshapen tensor.
    """
    _check(stored, names, sizes, orient)

    def read(name):
        paths = names[name]
        whole = orient(paths[0], stored[name].read())
        ends = np.cumsum([sizes[path][-1] for path in paths])[:-1]
        parts = zip(paths, np.split(whole, ends, axis=-1), strict=True)
        return [held(path, _to_device(part, dtype), quantize) for path, part in parts]

    params = {}
    for name in sorted(names, key=lambda name: -math.prod(stored[name].shape)):
        params |= zip(names[name], read(name), strict=True)
    return unflatten_dict(params, sep="/")


def _to_device(array: np.ndarray, dtype: str) -> jax.Array:
    """`array` in `dtype`, copied once: XLA adopts host memory that is aligned to 64 bytes."""
    size = array.size * jnp.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + size].view(dtype).reshape(array.shape)
    copy[...] = array
    return jax.device_put(copy)


def _check(stored, names, sizes, orient):
    wanted = {name: _stored_shape(paths, sizes, orient) for name, paths in names.items()}
    for name, shape in wanted.items():
        if name not in stored:
            missing = len(wanted.keys() - stored.keys())
            raise UserError(
                f"tensor {name!r} {list(shape)} is missing ({missing} of {len(wanted)} are); "
                "the configuration and the weights belong to different models, or a file is lost"
            )
        if tuple(stored[name].shape) != shape:
            raise UserError(
                f"tensor {name!r} has shape {list(stored[name].shape)}, "
                f"but the configuration asks for {list(shape)}"
            )
    for name in sorted(stored.keys() - wanted.keys()):
        raise UserError(
            f"tensor {name!r} {list(stored[name].shape)} is in the file, "
            "but a model of this configuration has no place for it"
        )


def _stored_shape(paths, sizes, orient) -> tuple[int, ...]:
    first = sizes[paths[0]]
    joined = (*first[:-1], sum(sizes[path][-1] for path in paths))
    blank = np.broadcast_to(np.empty(()), joined)  # takes no memory
    return orient(paths[0], blank).shape


def store(flat: dict, names: dict[str, list[str]], orient=transpose_kernels):
    """Yields (name, array as stored) for each of `names` from parameters by path."""
    for name, paths in names.items():
        whole = np.concatenate([np.asarray(flat[path]) for path in paths], axis=-1)
        yield name, np.ascontiguousarray(orient(paths[0], whole))
