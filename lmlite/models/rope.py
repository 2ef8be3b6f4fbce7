"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split as Hugging Face has it.

B batch, T tokens, N heads, H head size.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.errors import UserError


def frequencies(head_size: int, base: float, scaling: tuple = ()) -> np.ndarray:
    """Angular frequency of each pair: float32[H / 2], radians a position.

    scaling: (key, value) pairs of Hugging Face's `rope_scaling`; types linear and llama3.
    Raises UserError for another type.
    """
    freq = 1.0 / base ** (np.arange(0, head_size, 2) / head_size)
    rule = dict(scaling)
    kind = rule.get("rope_type", rule.get("type", "default"))
    if kind == "default":
        pass
    elif kind == "linear":
        freq = freq / rule["factor"]
    elif kind == "llama3":
        freq = _llama3(freq, rule)
    else:
        raise UserError(f"rope_scaling type {kind!r} is unknown; known: default, linear, llama3")
    return freq.astype(np.float32)


def _llama3(freq: np.ndarray, rule: dict) -> np.ndarray:
    """Llama 3.1: long waves are slowed by `factor`, short ones kept, the others interpolated."""
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    turns = rule["original_max_position_embeddings"] * freq / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - keep) * freq / rule["factor"] + keep * freq


def rotate(x: jax.Array, position: jax.Array, freq: np.ndarray) -> jax.Array:
    """Turns each pair (i, i + H/2) of x [B, T, N, H] by position [B, T] times freq [H/2]."""
    angle = position[..., None].astype(jnp.float32) * freq
    sin, cos = jnp.sin(angle)[:, :, None], jnp.cos(angle)[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
