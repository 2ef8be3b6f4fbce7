"""GGUF files of the Llama, Qwen 2 and 3, and Gemma 2 and 3 architectures as decoders.

N heads, H head size, D width.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmlite.errors import UserError
from lmlite.models import config_json, weights
from lmlite.models.config import DecoderConfig
from lmlite.models.decoder import Decoder
from lmlite.models.gguf_file import GGUF
from lmlite.models.rope import frequencies

# GGUF architecture -> family; Mistral's files call themselves llama.
_FAMILIES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
_KEYS = {  # without the architecture in front -> key of config.json
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_MODULES = {
    "embed": "token_embd",
    "layers_{i}/attn_norm": "blk.{i}.attn_norm",
    "layers_{i}/attn/q": "blk.{i}.attn_q",
    "layers_{i}/attn/k": "blk.{i}.attn_k",
    "layers_{i}/attn/v": "blk.{i}.attn_v",
    "layers_{i}/attn/o": "blk.{i}.attn_output",
    "layers_{i}/attn/q_norm": "blk.{i}.attn_q_norm",
    "layers_{i}/attn/k_norm": "blk.{i}.attn_k_norm",
    "layers_{i}/attn_post_norm": "blk.{i}.post_attention_norm",
    "layers_{i}/mlp_norm": "blk.{i}.ffn_norm",
    "layers_{i}/mlp/gate": "blk.{i}.ffn_gate",
    "layers_{i}/mlp/up": "blk.{i}.ffn_up",
    "layers_{i}/mlp/down": "blk.{i}.ffn_down",
    "layers_{i}/mlp_post_norm": "blk.{i}.post_ffw_norm",
    "norm": "output_norm",
    "head": "output",
}
_ENDS = (
    "<end_of_turn>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
)
_ROPE_FACTORS = "rope_freqs.weight"


def read_config(file: GGUF) -> DecoderConfig:
    """The configuration in a file's metadata.

    Raises UserError for an architecture or a feature that is not supported.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise UserError(f"GGUF architecture {architecture!r} is not known; known: {known}")
    told = {
        key.removeprefix(architecture + "."): value
        for key, value in file.metadata.items()
        if key.startswith(architecture + ".")
    }
    if "token_embd.weight" not in file.tensors:
        raise UserError(
            "GGUF without a tensor 'token_embd.weight': a vocabulary alone, or a part of a split "
            "file; name a file that is whole"
        )
    if told.get("expert_count"):
        raise UserError(f"GGUF with {told['expert_count']} experts; only dense models are read")
    raw = {ours: told[theirs] for theirs, ours in _KEYS.items() if theirs in told}
    raw |= {
        "model_type": _FAMILIES[architecture],
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": False,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _ends(file.metadata),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
    }
    return config_json.read(raw | _rope_scaling(file, told, raw) | _query_scalar(raw))


def _ends(metadata: Mapping[str, Any]) -> list[int] | None:
    """Ids that end a text or, of a chat model, a turn; some files have the latter's token alone."""
    named = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    tokens = list(metadata.get("tokenizer.ggml.tokens", ()))
    named += [tokens.index(token) for token in _ENDS if token in tokens]
    return list(dict.fromkeys(int(i) for i in named if i is not None)) or None


def read_params(
    file: GGUF, config: DecoderConfig, dtype: str = "float32", quantize: str = ""
) -> dict:
    """Parameter tree of the file's tensors in `dtype`, dequantized one at a time; quantize: see
    `weights.load`.

    Raises UserError for a missing, superfluous or misshapen tensor.
    """
    sizes = weights.shapes(Decoder(config))
    names = weights.group(_MODULES, sizes)
    stored = {name: tensor for name, tensor in file.tensors.items() if name != _ROPE_FACTORS}

    def orient(path: str, array: np.ndarray) -> np.ndarray:
        if config.family == "llama" and path.endswith(("attn/q/kernel", "attn/k/kernel")):
            array = _half_split(array, config.head_size)
        if path.endswith("/scale") and config.norm_offset:
            array = array - np.float32(config.norm_offset)  # files hold the sum
        return weights.transpose_kernels(path, array)

    return weights.load(stored, names, sizes, dtype, orient, quantize)


def _half_split(array: np.ndarray, head_size: int) -> np.ndarray:
    """Rows [N * H, D] whose rotary pairs are neighbours -> rows whose pairs are H / 2 apart."""
    pairs = array.reshape(-1, head_size // 2, 2, array.shape[-1])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _query_scalar(raw: dict) -> dict:
    """Gemma scales queries by 1/sqrt(H), except its 27B models, which scale by sqrt(N / D)."""
    if not raw["model_type"].startswith("gemma"):
        return {}
    largest = raw["num_hidden_layers"] == {"gemma2": 46, "gemma3_text": 62}[raw["model_type"]]
    per_head = raw["hidden_size"] // raw["num_attention_heads"]
    return {"query_pre_attn_scalar": per_head if largest else raw["head_dim"]}


def _rope_scaling(file: GGUF, told: dict, raw: dict) -> dict:
    """Linear scaling is a key; Llama 3's a tensor of what each frequency is divided by."""
    kind = told.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UserError(f"GGUF rope scaling {kind!r} is not supported; known: none, linear")
    if kind == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": told["rope.scaling.factor"]}}
    if _ROPE_FACTORS not in file.tensors:
        return {}
    factors = file.tensors[_ROPE_FACTORS].read()
    rule = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    base, size = raw["rope_theta"], 2 * len(factors)
    plain = frequencies(size, base)
    if not np.allclose(plain / frequencies(size, base, tuple(rule.items())), factors, rtol=1e-3):
        raise UserError(f"GGUF {_ROPE_FACTORS!r} is not Llama 3's rope scaling; not supported")
    return {"rope_scaling": rule}
