"""A LoRA adapter as PEFT reads it: adapter_config.json and adapter_model.safetensors.

I inputs, O outputs, R rank. Llama's module names.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lmlite import tree
from lmlite.adapt.lora import LoRA
from lmlite.adapt.method import owners
from lmlite.models.json_file import write_json

_MODULES = {"attn": "self_attn", "mlp": "mlp"}


def write_adapter(directory: Path, method: LoRA, params: dict) -> None:
    """Writes the adapter in `params`, one rank for all layers: A [R, I] and B [O, R] in float32."""
    flat, tensors, targets = tree.flatten(params), {}, set()
    for path in owners(params, "lora_a"):
        layer, block, name = path.split("/")  # layers_3/attn/q
        module = f"layers.{layer.removeprefix('layers_')}.{_MODULES[block]}.{name}_proj"
        for peft, ours in (("lora_A", "lora_a"), ("lora_B", "lora_b")):
            key = f"base_model.model.model.{module}.{peft}.weight"
            tensors[key] = np.ascontiguousarray(np.asarray(flat[f"{path}/{ours}"]).T)
        targets.add(f"{name}_proj")
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = dict(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=False,
        target_modules=sorted(targets),
    )
    write_json(directory / "adapter_config.json", config)
