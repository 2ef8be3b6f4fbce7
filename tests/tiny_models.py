"""Tiny Hugging Face directories, written by hand with the names and shapes of the real ones.

V vocabulary, D width, F hidden, H head size; 2 layers, 4 heads, 2 key/value heads.
"""

import json

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from lmlite.models import hf

V, D, F, H = 40, 32, 64, 8
LLAMA = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": H,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LLAMA | {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "eos_token_id": [3, 5],
    },
    "llama_tied": LLAMA | {"model_type": "llama", "tie_word_embeddings": True},
    "mistral": LLAMA | {"sliding_window": 6},
    "qwen2": LLAMA | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": LLAMA | {"tie_word_embeddings": True},
    "gemma2": LLAMA | {"query_pre_attn_scalar": 24, "sliding_window": 6},
    "gemma3_text": LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "gpt2": {"vocab_size": V, "n_embd": D, "n_layer": 2, "n_head": 4, "n_positions": 64},
}  # fmt: skip
TIED = {"llama_tied", "qwen3", "gemma2", "gemma3_text", "gpt2"}


def config_of(name):
    return {"model_type": name} | CONFIGS[name]


def shapes_of(name):
    """Tensor name -> shape as Hugging Face stores it."""
    if name == "gpt2":
        shapes = {"transformer.wte.weight": (V, D), "transformer.wpe.weight": (64, D)}
        ends = {"transformer.ln_f": (D,)}
        blocks = {"ln_1": (D,), "ln_2": (D,), "attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D),
                  "mlp.c_fc": (D, 4 * D), "mlp.c_proj": (4 * D, D)}  # fmt: skip
        for module, shape in ends.items():
            shapes |= {f"{module}.weight": shape, f"{module}.bias": shape[-1:]}
        for i in range(2):
            for module, shape in blocks.items():
                at = f"transformer.h.{i}.{module}"
                shapes |= {f"{at}.weight": shape, f"{at}.bias": shape[-1:]}
        return shapes
    block = {
        "input_layernorm": (D,),
        "post_attention_layernorm": (D,),
        "self_attn.q_proj": (4 * H, D),
        "self_attn.k_proj": (2 * H, D),
        "self_attn.v_proj": (2 * H, D),
        "self_attn.o_proj": (D, 4 * H),
        "mlp.gate_proj": (F, D),
        "mlp.up_proj": (F, D),
        "mlp.down_proj": (D, F),
    }
    if name.startswith("gemma"):
        block |= {"pre_feedforward_layernorm": (D,), "post_feedforward_layernorm": (D,)}
    if name in ("qwen3", "gemma3_text"):
        block |= {"self_attn.q_norm": (H,), "self_attn.k_norm": (H,)}
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    for i in range(2):
        shapes |= {f"model.layers.{i}.{module}.weight": shape for module, shape in block.items()}
        if name == "qwen2":
            for part in "qkv":
                at = f"model.layers.{i}.self_attn.{part}_proj"
                shapes[f"{at}.bias"] = shapes[f"{at}.weight"][:1]
    return shapes if name in TIED else shapes | {"lm_head.weight": (V, D)}


def random_tensors(name, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = shapes_of(name)
    return {key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}


def make(folder, name, tensors=None, **config):
    """A Hugging Face directory; returns its tensors."""
    folder.mkdir(exist_ok=True)
    tensors = random_tensors(name) if tensors is None else tensors
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(name) | config))
    return tensors


def read(folder, dtype="float32"):
    config = hf.read_config(folder)
    return config, hf.read_params(folder, config, dtype)


def assert_same(one, two):
    one, two = flatten_dict(one, sep="/"), flatten_dict(two, sep="/")
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(np.asarray(one[key]), np.asarray(two[key]), err_msg=key)
