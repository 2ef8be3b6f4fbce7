"""Prompt tuning, P-tuning and prefix tuning: one tensor, `prompt_embeddings`.

P virtual tokens, D width, L layers, K key/value heads, H head size.

It is [P, D], or [P, L * 2 * K * H] with each layer's keys before its values. What an encoder made
is stored, so P-tuning is read as prompt tuning and an encoded prefix as a plain one.
"""

import numpy as np

from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.prefix import PrefixTuning
from lmlite.adapt.prompt import PromptTuning
from lmlite.errors import UserError
from lmlite.models.lm import LM

_NAME = "prompt_embeddings"


def read_prompt(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    prompt = _stored(tensors, lm.config.width, lm)
    return Adaptation(PromptTuning(len(prompt), start="random"), {"embed": {"prompt": prompt}})


def read_prefix(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    c = lm.config
    shape = c.layers, 2, c.kv_heads, c.head_size
    pairs = _stored(tensors, int(np.prod(shape)), lm).reshape(-1, *shape)
    own = {
        f"layers_{i}": {"attn": {"prefix_key": pairs[:, i, 0], "prefix_value": pairs[:, i, 1]}}
        for i in range(c.layers)
    }
    return Adaptation(PrefixTuning(len(pairs), start="random"), own)


def write_prompt(adaptation: Adaptation, lm: LM) -> tuple[dict, dict[str, np.ndarray]]:
    """See `lmlite.peft.write`."""
    prompt = np.asarray(adaptation.params["embed"]["prompt"])
    return _config("PROMPT_TUNING", len(prompt), lm), {_NAME: prompt}


def write_encoded_prompt(adaptation: Adaptation, lm: LM) -> tuple[dict, dict[str, np.ndarray]]:
    """See `lmlite.peft.write`."""
    prompt = np.asarray(adaptation.method.prompt(adaptation.params))
    kind = {"encoder_reparameterization_type": adaptation.method.encoder.upper()}
    sizes = {"encoder_hidden_size": adaptation.method.hidden, "encoder_num_layers": 2}
    return _config("P_TUNING", len(prompt), lm) | kind | sizes, {_NAME: prompt}


def write_prefix(adaptation: Adaptation, lm: LM) -> tuple[dict, dict[str, np.ndarray]]:
    """See `lmlite.peft.write`."""
    pairs = adaptation.method.pairs(lm.config, adaptation.params)  # L pairs [P, K, H]
    joined = np.stack([np.stack([np.asarray(x) for x in pair], axis=1) for pair in pairs], axis=1)
    c = lm.config
    sizes = {"token_dim": c.kv_heads * c.head_size, "num_attention_heads": c.kv_heads}
    config = _config("PREFIX_TUNING", len(joined), lm) | sizes | {"prefix_projection": False}
    return config, {_NAME: joined.reshape(len(joined), -1)}


def _config(kind: str, length: int, lm: LM) -> dict:
    return {
        "peft_type": kind,
        "num_virtual_tokens": length,
        "token_dim": lm.config.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": lm.config.heads,
        "num_layers": lm.config.layers,
        "modules_to_save": None,
    }


def _stored(tensors: dict[str, np.ndarray], width: int, lm: LM) -> np.ndarray:
    """[P, width]."""
    if tensors.keys() != {_NAME}:
        raise UserError(f"the adapter holds {sorted(tensors)}; such an adapter has {_NAME!r} alone")
    if lm.config.cross or not lm.config.causal:
        raise UserError(f"virtual tokens need a decoder-only model, not {lm.config.family}")
    found = tensors[_NAME]
    if found.ndim != 2 or found.shape[1] != width:
        raise UserError(
            f"{_NAME} has shape {list(found.shape)}, but the model asks for {width} numbers a "
            "token; the adapter was made for another model"
        )
    return found
