"""Hugging Face model directories: config.json and safetensors, single or sharded, both ways."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from lmlite.errors import UserError
from lmlite.models import checks, config_json, tensor_files, weights
from lmlite.models.build import build
from lmlite.models.config import ModelConfig
from lmlite.models.families import FAMILIES
from lmlite.models.json_file import read_json, write_json

# One checkpoint is saved with or without the names of the modules around it.
_AROUND = re.compile(r"^((language_)?model\.|transformer\.|(distilbert|roberta|bert)\.)+")
_OLD_NORMS = {"gamma": "weight", "beta": "bias"}  # in checkpoints converted from TensorFlow
_HEADS = ("head/kernel", "head/bias", "masked/bias")
# Parameter -> the one whose tensor may be stored in its place, where the model has but one of them.
_TWINS = {
    "embed/embedding": "head/kernel",
    "head/bias": "masked/bias",
    "masked/bias": "head/bias",
}
# Buffers that older libraries saved, and the half of Gemma 3 that looks at images.
_UNUSED = (
    r".*\.rotary_emb\.inv_freq|.*\.attn\.(masked_)?bias|(vision_tower|multi_modal_projector)\..*"
)


def read_config(directory: Path) -> ModelConfig:
    """The configuration in `directory`. Raises UserError where it is missing or not understood."""
    config = config_json.read(_read_told(Path(directory)))
    stored = {bare_name(name): one for name, one in tensor_files.read(Path(directory)).items()}
    presence = FAMILIES[config.family].presence
    told = [fields for tensor, fields in presence.items() if tensor in stored]
    config = dataclasses.replace(config, **{k: v for fields in told for k, v in fields.items()})
    return _untied(config, stored)


def _read_told(directory: Path) -> dict:
    """config.json with what generation_config.json says of how a text starts and ends."""
    raw, path = read_json(directory / "config.json"), directory / "generation_config.json"
    if not path.exists():
        return raw
    generation = read_json(path)
    eos = checks.token_ids(generation.get("eos_token_id"), f"{path.name}: eos_token_id")
    # Chat models name the end of a turn here alone. `transformers` looks nowhere else for a start.
    ends = {"eos_token_id": [*eos]} if eos else {}
    start = {"forced_bos_token_id": generation.get("forced_bos_token_id")}
    raw.pop("force_bos_token_to_be_generated", None)
    return raw | ends | start


def _untied(config: ModelConfig, stored: dict[str, weights.Stored]) -> ModelConfig:
    """The configuration without its tie where a head is stored that is not the token table.

    `transformers` does the same. stored: tensors by bare name.
    """
    if not config.tied or not getattr(config, "masked_head", True):
        return config
    names = [f"{_table(config)[module]}.weight" for module in ("embed", "head")]
    tensors = [stored.get(bare_name(name)) for name in names]
    if None in tensors or _equal(*tensors):
        return config
    if not FAMILIES[config.family].unties:
        raise UserError(
            f"tensor {names[1]!r} differs from the token table {names[0]!r}; a {config.family} "
            "model has one for both: remove the one that is not meant"
        )
    return dataclasses.replace(config, tied=False)


def _equal(one: weights.Stored, two: weights.Stored) -> bool:
    return one.shape == two.shape and np.array_equal(one.read(), two.read())


def read_params(
    directory: Path, config: ModelConfig, dtype: str = "float32", quantize: str = ""
) -> dict:
    """Parameter tree of the directory's weights in `dtype`; reads only what `config` needs.

    quantize: see `weights.load`.
    Raises UserError for a missing or damaged file and a missing, superfluous or misshapen tensor.
    """
    sizes = weights.shapes(build(config))
    names = tensor_names(config, sizes)
    stored = tensor_files.read(Path(directory))
    usual = {bare_name(name): name for name in names}
    needless = _needless(config, names)
    found = {
        usual.get(bare_name(name), name): tensor
        for name, tensor in stored.items()
        if not needless.fullmatch(bare_name(name))
    }
    bare = {bare_name(name): tensor for name, tensor in stored.items()}
    for name, others in _copies(config, names).items():
        instead = [bare[other] for other in others if other in bare]
        found |= {name: instead[0]} if instead and name not in found else {}
    return weights.load(found, names, sizes, dtype, _orient(config), quantize)


def write(directory: Path, config: ModelConfig, params: dict, shard_bytes: int = 5 * 10**9) -> None:
    """Writes config.json and the weights, in their own dtypes and shards of `shard_bytes`.

    Weights that were in the directory before are replaced.
    Raises UserError where the family of `config` cannot express it.
    """
    directory = Path(directory)
    raw = config_json.write(config) | {"torch_dtype": str(params["embed"]["embedding"].dtype)}
    directory.mkdir(parents=True, exist_ok=True)
    flat = flatten_dict(params, sep="/")
    names = tensor_names(config, flat)
    bytes_of = {name: sum(flat[path].nbytes for path in paths) for name, paths in names.items()}

    def arrays(shard):
        return weights.store(flat, {name: names[name] for name in shard}, _orient(config))

    tensor_files.write(directory, bytes_of, arrays, shard_bytes)
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

    A head is often stored in each of its forms, tied and not, and older RoBERTa classifiers have
    the pooler that their head replaces.
    """
    family = FAMILIES[config.family]
    copies = {*_names(config, _HEADS), *family.copies} - names.keys()
    copied = (re.escape(bare_name(name)) for name in copies)
    replaced = family.classified if getattr(config, "classified", False) else ()
    modules = (family.modules[entry] for entry in replaced if entry in family.modules)
    poolers = (rf"{re.escape(bare_name(name))}\..*" for name in modules)
    kinds = [_UNUSED, family.unused, *copied, *poolers]
    return re.compile("|".join(kind for kind in kinds if kind))


def _names(config, paths) -> list[str]:
    """Stored names of those of `paths` that the family has."""
    table = _table(config)
    known = [path for path in paths if path in table or path.rpartition("/")[0] in table]
    return list(weights.group(table, known))


def _copies(config, names) -> dict[str, list[str]]:
    """Tensor name -> the bare names that a file may have in its place; of a shared one alone."""
    read = {path for paths in names.values() for path in paths}
    out = {}
    for name, (path, *_) in names.items():
        twins = [_TWINS[path]] if path in _TWINS and _TWINS[path] not in read else []
        more = FAMILIES[config.family].copies if path == "embed/embedding" else ()
        out[name] = [bare_name(other) for other in (*_names(config, twins), *more)]
    return out


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
