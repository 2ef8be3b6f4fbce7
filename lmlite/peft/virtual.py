"""Prompt tuning, P-tuning and prefix tuning: one tensor, `prompt_embeddings`.

P virtual tokens, D width, L layers, K key/value heads, H head size, M pairs of keys and values.

A prompt is [P, D]; PEFT makes it [2 P, D] for an encoder-decoder, whose source gets the first P,
and uses no others. A prefix is [P, M * 2 * K * H], each layer's keys before its values. What an
encoder made is stored, so P-tuning is read as prompt tuning and an encoded prefix as a plain one.

For a decoder and an encoder M is L. For an encoder-decoder PEFT takes pairs in turn for a layer's
self-attention and for its attention to the source, begins again where they end, and then drops the
latter: layer i gets pair 2 i mod M. Its own default of M = L, the encoder's, gives layers i and
i + L / 2 of an even L the same keys. What is written here has M = 2 L, which gives every layer its
own.

PEFT reads these adapters with a task_type alone. Of an encoder it gives the logits at its P prompt
tokens as well; it puts no prefix before a classifier, nor (in silence) before DistilBERT.
"""

import numpy as np

from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.prefix import PrefixTuning
from lmlite.adapt.prompt import PromptTuning
from lmlite.errors import UserError
from lmlite.models.config import EncoderConfig, StackConfig
from lmlite.models.lm import LM

_NAME = "prompt_embeddings"


def read_prompt(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    prompt = _stored(config, tensors, lm.config.width)[: _length(config)]
    return Adaptation(PromptTuning(len(prompt), start="random"), {"embed": {"prompt": prompt}})


def read_prefix(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    c = lm.config
    if not isinstance(c, StackConfig):
        raise UserError(f"a prefix needs a transformer, not a {c.family} model")
    if c.cross and config.get("num_transformer_submodules") == 1:
        raise UserError(
            "num_transformer_submodules=1 mixes an encoder-decoder's prefix with what it reads of "
            "the source; train the adapter with PEFT's default"
        )
    count = (c.cross and config.get("num_layers")) or c.layers
    shape = count, 2, c.kv_heads, c.head_size
    pairs = _stored(config, tensors, int(np.prod(shape))).reshape(-1, *shape)
    own = {}
    for i in range(c.layers):
        pair = pairs[:, 2 * i % count if c.cross else i]
        own[f"layers_{i}"] = {"attn": {"prefix_key": pair[:, 0], "prefix_value": pair[:, 1]}}
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
    if c.cross:
        between = np.zeros_like(joined)  # for the attention to the source
        joined = np.stack([joined, between], axis=2).reshape(len(joined), -1, *joined.shape[2:])
    sizes = {"token_dim": c.kv_heads * c.head_size, "num_attention_heads": c.kv_heads}
    sizes |= {"num_layers": joined.shape[1], "num_transformer_submodules": 2 if c.cross else 1}
    config = _config("PREFIX_TUNING", len(joined), lm) | sizes | {"prefix_projection": False}
    return config, {_NAME: joined.reshape(len(joined), -1)}


def _config(kind: str, length: int, lm: LM) -> dict:
    task = {"task_type": "FEATURE_EXTRACTION"} if isinstance(lm.config, EncoderConfig) else {}
    return task | {
        "peft_type": kind,
        "num_virtual_tokens": length,
        "token_dim": lm.config.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": lm.config.heads,
        "num_layers": lm.config.layers,
        "modules_to_save": None,
    }


def _length(config: dict) -> int | None:
    """P; None, which takes all, where the config does not tell it."""
    return config.get("num_virtual_tokens")


def _stored(config: dict, tensors: dict[str, np.ndarray], width: int) -> np.ndarray:
    """[P, width], or a multiple of P where the tensor holds the tokens of several stacks."""
    if tensors.keys() != {_NAME}:
        raise UserError(f"the adapter holds {sorted(tensors)}; such an adapter has {_NAME!r} alone")
    found, length = tensors[_NAME], _length(config) or 1
    if found.ndim != 2 or found.shape[1] != width or len(found) % length:
        raise UserError(
            f"{_NAME} has shape {list(found.shape)}, but the model asks for {width} numbers a "
            f"token, and the config for {length} tokens; the adapter was made for another model"
        )
    return found
