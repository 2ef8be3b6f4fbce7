"""Hugging Face model directories: config.json and safetensors, single or sharded, both ways."""

import dataclasses
import os
import re
from functools import partial
from pathlib import Path

from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lmlite.errors import UserError
from lmlite.models import config_json, weights
from lmlite.models.build import build
from lmlite.models.config import ModelConfig
from lmlite.models.families import FAMILIES
from lmlite.models.json_file import read_json, write_json

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# One checkpoint is saved with or without the names of the modules around it.
_AROUND = re.compile(r"^((language_)?model\.|transformer\.|(distilbert|roberta|bert)\.)+")
_OLD_NORMS = {"gamma": "weight", "beta": "bias"}  # in checkpoints converted from TensorFlow
_HEADS = ("head/kernel", "head/bias", "masked/bias")
# Buffers that older libraries saved, and the half of Gemma 3 that looks at images.
_UNUSED = (
    r".*\.rotary_emb\.inv_freq|.*\.attn\.(masked_)?bias|(vision_tower|multi_modal_projector)\..*"
)


def read_config(directory: Path) -> ModelConfig:
    """The configuration in `directory`. Raises UserError where it is missing or not understood."""
    directory = Path(directory)
    raw = read_json(directory / "config.json")
    generation = directory / "generation_config.json"
    if generation.exists() and (eos := read_json(generation).get("eos_token_id")) is not None:
        raw["eos_token_id"] = eos  # chat models name the end of a turn here alone
    config = config_json.read(raw)
    presence = FAMILIES[config.family].presence
    stored = {bare_name(name) for name in _open(directory)} if presence else ()
    told = [fields for tensor, fields in presence.items() if tensor in stored]
    return dataclasses.replace(config, **{k: v for fields in told for k, v in fields.items()})


def read_params(directory: Path, config: ModelConfig, dtype: str = "float32") -> dict:
    """Parameter tree of the directory's weights in `dtype`; reads only what `config` needs.

    Raises UserError for a missing or damaged file and a missing, superfluous or misshapen tensor.
    """
    sizes = weights.shapes(build(config))
    names = tensor_names(config, sizes)
    usual = {bare_name(name): name for name in names}
    needless = _needless(config, names)
    found = {
        usual.get(bare_name(name), name): tensor
        for name, tensor in _open(Path(directory)).items()
        if not needless.fullmatch(bare_name(name))
    }
    return weights.load(found, names, sizes, dtype, _orient(config))


def write(directory: Path, config: ModelConfig, params: dict, shard_bytes: int = 5 * 10**9) -> None:
    """Writes config.json and the weights, in their own dtypes and shards of `shard_bytes`.

    Weights that were in the directory before are replaced.
    Raises UserError where the family of `config` cannot express it.
    """
    directory = Path(directory)
    raw = config_json.write(config) | {"torch_dtype": str(params["embed"]["embedding"].dtype)}
    directory.mkdir(parents=True, exist_ok=True)
    old = {*directory.glob("model*.safetensors"), *directory.glob(_INDEX)}
    new = _write_weights(directory, config, params, shard_bytes)
    for path in old - new:
        path.unlink()
    write_json(directory / "config.json", raw)


def tensor_names(config: ModelConfig, paths) -> dict[str, list[str]]:
    """Stored tensor name -> the parameter paths it holds, in the order they are joined."""
    family = FAMILIES[config.family]
    names = weights.group(_table(config), paths)
    if getattr(config, "masked_head", True) or config.classified:
        return names
    return {name.removeprefix(family.base): paths for name, paths in names.items()}


def _table(config) -> dict[str, str]:
    family = FAMILIES[config.family]
    table = family.modules if config.gated else family.modules | family.ungated
    return {**table, **(family.classified if getattr(config, "classified", False) else {})}


def _needless(config, names) -> re.Pattern:
    """Bare names of tensors that are read neither as `names` nor as anything else.

    A head is often stored in each of its forms, tied and not.
    """
    table = _table(config)
    heads = [path for path in _HEADS if path in table or path.rpartition("/")[0] in table]
    copies = weights.group(table, heads).keys() - names.keys()
    copied = (re.escape(bare_name(name)) for name in copies)
    kinds = [_UNUSED, FAMILIES[config.family].unused, *copied]
    return re.compile("|".join(kind for kind in kinds if kind))


def _orient(config):
    input_first = FAMILIES[config.family].input_first

    def orient(path, array):
        kept = input_first and path.startswith("layers_")
        return array if kept else weights.transpose_kernels(path, array)

    return orient


def bare_name(name: str) -> str:
    """A tensor's name without those of the modules around the stack, which not all files have."""
    owner, _, leaf = _AROUND.sub("", name).rpartition(".")
    leaf = _OLD_NORMS.get(leaf, leaf)
    return f"{owner}.{leaf}" if owner else leaf


def _open(directory: Path) -> dict[str, weights.Stored]:
    """Every tensor of the directory by name; the files stay open as long as the result lives."""
    if (directory / _INDEX).exists():
        files = sorted(set(read_json(directory / _INDEX)["weight_map"].values()))
    else:
        files = [_SINGLE]
    stored = {}
    for file in files:
        opened = _open_file(directory / file)
        for name in opened.keys():
            shape = tuple(opened.get_slice(name).get_shape())
            stored[name] = weights.Stored(shape, partial(opened.get_tensor, name))
    return stored


def _open_file(path: Path):
    try:
        # Read, not mapped: mapped pages would count as memory next to the arrays made of them.
        return safe_open(path, framework="numpy", backend="pread")
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist; weights are read from safetensors files") from e
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path} is damaged ({e}); fetch it again") from e


def _write_weights(directory: Path, config, params, limit: int) -> set[Path]:
    """Writes the shards and, if there are several, their index; returns the files written."""
    flat = flatten_dict(params, sep="/")
    names = tensor_names(config, flat)
    bytes_of = {name: sum(flat[path].nbytes for path in paths) for name, paths in names.items()}
    shards = _shards(bytes_of, limit)
    written, where = set(), {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else _SINGLE
        arrays = weights.store(flat, {name: names[name] for name in shard}, _orient(config))
        draft = directory / (file + ".part")
        save_file(dict(arrays), draft, metadata={"format": "pt"})
        os.replace(draft, directory / file)
        written.add(directory / file)
        where |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = {"total_size": sum(bytes_of.values())}
        write_json(directory / _INDEX, {"metadata": total, "weight_map": where})
        written.add(directory / _INDEX)
    return written


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
