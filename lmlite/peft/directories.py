"""The two files of an adapter directory, and what every kind of adapter has in its config."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lmlite.errors import UserError
from lmlite.models.config import DecoderConfig, EncDecConfig
from lmlite.models.json_file import read_json, write_json
from lmlite.models.lm import LM

CONFIG, WEIGHTS, HEAD = "adapter_config.json", "adapter_model.safetensors", "head.safetensors"
_TASKS = {DecoderConfig: "CAUSAL_LM", EncDecConfig: "SEQ_2_SEQ_LM"}
_PREFIX = "base_model.model."
# Settings that change what an adapter computes in ways lmlite has not, with what turns them off.
_UNSUPPORTED = {
    "modules_to_save": "train the adapter without it (a task_type of SEQ_CLS adds it by itself), "
    "or fold it into the model with PEFT",
    "trainable_token_indices": "train the adapter without it",
    "target_parameters": "name modules in target_modules instead",
    "layer_replication": "fold the adapter into the model with PEFT",
    "alora_invocation_tokens": "train a plain LoRA",
    "use_qalora": "train a plain LoRA",
    "lora_bias": "train the adapter without it",
    "use_bdlora": "train a plain LoRA",
    "kasa_config": "train a plain LoRA",
    "velora_config": "train a plain LoRA",
    "monteclora_config": "train a plain LoRA",
}
_MOVED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read(directory: Path) -> tuple[dict, dict[str, np.ndarray], dict]:
    """The config, the tensors (float32) by the base model's names, and the parameters of a head.

    Raises UserError where a file is missing or damaged.
    """
    if not (directory / CONFIG).exists():
        raise UserError(f"{directory} is not a PEFT adapter: it has no {CONFIG}")
    if not (directory / WEIGHTS).exists():
        raise UserError(
            f"{directory} has no {WEIGHTS}; save the adapter with safe_serialization=True"
        )
    head = {"probe": _tensors(directory / HEAD)} if (directory / HEAD).exists() else {}
    found = _tensors(directory / WEIGHTS)
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in found.items()}
    config = read_json(directory / CONFIG)
    if not isinstance(config, dict):
        raise UserError(f"{directory / CONFIG} holds no fields; save the adapter again")
    return config, named, head


def refuse(config: dict) -> None:
    """Raises UserError for a setting whose effect lmlite has not."""
    for name, remedy in _UNSUPPORTED.items():
        if config.get(name):
            raise UserError(f"{CONFIG}: {name}={config[name]!r} is not supported; {remedy}")
    if config.get("bias", "none") != "none":
        raise UserError(f"{CONFIG}: bias={config['bias']!r} is not supported; train with 'none'")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_MOVED_BASE):
        raise UserError(
            f"{CONFIG}: init_lora_weights={start!r} moved the base model's weights; save the "
            "adapter with path_initial_model_for_weight_conversion"
        )


def write(
    directory: Path, config: dict, tensors: dict[str, np.ndarray], head: dict, lm: LM
) -> None:
    """Writes the files; config: what is particular to the kind. UserError where it cannot."""
    name, _, revision = lm.source.removeprefix("hf://").partition("@")
    common = {
        "base_model_name_or_path": name if lm.source.startswith("hf://") else lm.source,
        "revision": revision if revision and lm.source.startswith("hf://") else None,
        "task_type": _TASKS.get(type(lm.config)),
        "inference_mode": True,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, HEAD):  # the config comes back last: what is cut off is no adapter
            (directory / name).unlink(missing_ok=True)
        _save(directory / WEIGHTS, tensors)
        if head:
            _save(directory / HEAD, head["probe"])
        write_json(directory / CONFIG, common | config)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write an adapter to {directory}: {why}; make room, or name another folder"
        ) from error


def _save(path: Path, tensors: dict) -> None:
    arrays = {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}
    draft = path.with_name(path.name + ".part")
    save_file(arrays, draft, metadata={"format": "pt"})
    draft.replace(path)


def stored(module: str, part: str) -> str:
    """The name of a tensor: 'base_model.model.' + 'model.layers.0.mlp.up_proj' + '.' + part."""
    return f"{_PREFIX}{module}.{part}"


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return {name: np.asarray(x, np.float32) for name, x in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from error
