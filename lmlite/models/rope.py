"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), half-split as Hugging Face has it.

B batch, T tokens, N heads, H head size.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.errors import UserError

TYPES = {  # type -> the numbers that its rule needs
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}


def frequencies(head_size: int, base: float, scaling: tuple = ()) -> np.ndarray:
    """Angular frequency of each pair: float32[H / 2], radians a position.

    scaling: (key, value) pairs of Hugging Face's `rope_scaling`; types linear, llama3 and yarn.
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
    elif kind == "yarn":
        freq = _yarn(freq, rule, base)
    else:
        raise UserError(f"rope_scaling type {kind!r} is unknown; known: {', '.join(TYPES)}")
    return freq.astype(np.float32)


def _llama3(freq: np.ndarray, rule: dict) -> np.ndarray:
    """Llama 3.1: long waves are slowed by `factor`, short ones kept, the others interpolated."""
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    turns = rule["original_max_position_embeddings"] * freq / (2 * math.pi)
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - keep) * freq / rule["factor"] + keep * freq


def _yarn(freq: np.ndarray, rule: dict, base: float) -> np.ndarray:
    """YaRN (Peng et al. 2023, arXiv:2309.00071), section 3.2: Llama 3.1's with a ramp of pairs."""
    size, context = 2 * len(freq), rule["original_max_position_embeddings"]

    def pair(turns):
        """The pair that turns so often over the original context."""
        return size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(rule.get("beta_fast") or 32), pair(rule.get("beta_slow") or 1)
    if rule.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    slow = np.clip((np.arange(len(freq)) - low) / max(high - low, 1e-3), 0.0, 1.0)
    return slow * freq / rule["factor"] + (1 - slow) * freq


def attention_factor(scaling: tuple) -> float:
    """What YaRN multiplies sine and cosine by (section 3.4); 1 for other types."""
    rule = dict(scaling)
    if rule.get("rope_type") != "yarn":
        return 1.0
    factor, all_dims = rule["factor"], rule.get("mscale_all_dim")

    def scale(by):
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given := rule.get("attention_factor"):
        return given
    if rule.get("mscale") and all_dims:
        return scale(rule["mscale"]) / scale(all_dims)
    return scale(1.0)


class Turns(NamedTuple):
    """Sine and cosine of every token's angles: float32[B, T, H / 2] each."""

    sin: jax.Array
    cos: jax.Array


def turns(position: jax.Array, freq: np.ndarray, factor: float = 1.0) -> Turns:
    """The angles position [B, T] times freq [H / 2], once for all layers and heads.

    factor: multiplies sine and cosine, and so queries and keys.
    """

    def trigonometry():
        angle = position[..., None].astype(jnp.float32) * freq
        return Turns(factor * jnp.sin(angle), factor * jnp.cos(angle))

    def at_start():
        none = jnp.zeros((*position.shape, len(freq)), jnp.float32)
        return Turns(none, none + factor)

    if jax.default_backend() != "cpu":
        return trigonometry()
    # XLA would fuse sine and cosine into each rotation and take them anew for every head and layer,
    # 5 % of a pass; it takes nothing out of a branch.
    return jax.lax.cond(position.any(), trigonometry, at_start)


def rotate(x: jax.Array, by: Turns) -> jax.Array:
    """Turns each pair (i, i + H/2) of x [B, T, N, H] by its token's angles."""
    sin, cos = by.sin[:, :, None], by.cos[:, :, None]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
