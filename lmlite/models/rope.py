"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split as Hugging Face has it.

B batch, T tokens, N heads, H head size.
"""

import math
from typing import NamedTuple

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


class Turns(NamedTuple):
    """Sine and cosine of every token's angles: float32[B, T, H / 2] each."""

    sin: jax.Array
    cos: jax.Array


def turns(position: jax.Array, freq: np.ndarray) -> Turns:
    """The angles position [B, T] times freq [H / 2], once for all layers and heads."""
    angle = position[..., None].astype(jnp.float32) * freq
    return Turns(jnp.sin(angle), jnp.cos(angle))


def rotate(x: jax.Array, by: Turns) -> jax.Array:
    """Turns each pair (i, i + H/2) of x [B, T, N, H] by its token's angles."""
    sin, cos = by.sin[:, :, None], by.cos[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
