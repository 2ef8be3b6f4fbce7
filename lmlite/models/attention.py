"""Attention over a token's own row and, where there is one, a prefix that all rows share.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, G = N / K query
heads a key head, H head size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmlite.models.tokens import Tokens, visible

_HIDDEN = -1e30  # finite, so that a row that sees nothing stays free of NaN


class Prefix(NamedTuple):
    """Keys and values of tokens that every row sees, stored once: float[P, K, H].

    position: int32[P]; valid: bool[P], false for bucket padding.
    """

    key: jax.Array
    value: jax.Array
    position: jax.Array
    valid: jax.Array


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    query: Tokens,
    key: Tokens,
    *,
    scale: float,
    causal: bool = True,
    window: int = 0,
    soft_cap: float = 0.0,
    prefix: Prefix | None = None,
) -> jax.Array:
    """Softmax attention, float32 inside. q: [B, T, N, H]; k, v: [B, S, K, H] -> [B, T, N, H].

    `query` and `key` hold the attributes of the query [B, T] and key [B, S] tokens. Prefix keys are
    read un-batched, so their cost in memory traffic does not grow with B.
    """
    B, T, N, H = q.shape
    K = k.shape[2]
    q = (q * scale).reshape(B, T, K, N // K, H)

    def capped(scores):
        return soft_cap * jnp.tanh(scores / soft_cap) if soft_cap else scores

    def product(equation, a, b):
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)

    seen = visible(query, key, causal, window)[:, None, None]
    own = jnp.where(seen, capped(product("btkgh,bskh->bkgts", q, k)), _HIDDEN)
    if prefix is None:
        weights = jax.nn.softmax(own, axis=-1).astype(v.dtype)
        out = product("bkgts,bskh->btkgh", weights, v)
        return out.reshape(B, T, N, H).astype(v.dtype)

    P = prefix.key.shape[0]
    known = capped(product("btkgh,pkh->bkgtp", q, prefix.key))
    known = jnp.where(_prefix_visible(query, prefix, window)[:, None, None], known, _HIDDEN)
    # One softmax over both parts is the log-sum-exp combination, without its second pass.
    weights = jax.nn.softmax(jnp.concatenate([known, own], axis=-1), axis=-1).astype(v.dtype)
    out = product("bkgtp,pkh->btkgh", weights[..., :P], prefix.value)
    out += product("bkgts,bskh->btkgh", weights[..., P:], v)
    return out.reshape(B, T, N, H).astype(v.dtype)


def _prefix_visible(query: Tokens, prefix: Prefix, window: int) -> jax.Array:
    """bool[B, T, P]."""
    B, T = query.position.shape
    seen = jnp.broadcast_to(prefix.valid, (B, T, prefix.valid.shape[0]))
    if window:
        seen &= query.position[..., None] - prefix.position < window
    return seen
