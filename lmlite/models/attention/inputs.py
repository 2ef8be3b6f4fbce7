"""What every implementation of attention is given.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, H head size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmlite.models.tokens import Tokens, visible

HIDDEN = -1e30  # the score of an unseen key: finite, so that a row that sees none is free of NaN
FLOOR = -1e20  # where a running maximum starts, so that exp(HIDDEN - maximum) is 0 in every row


class Prefix(NamedTuple):
    """Keys and values of tokens that every row sees, stored once: float[P, K, H].

    position: int32[P]; valid: bool[P], false for bucket padding.
    """

    key: jax.Array
    value: jax.Array
    position: jax.Array
    valid: jax.Array

    def tokens(self) -> Tokens:
        """Its attributes as one row [1, P]: all of segment 1."""
        segment = self.valid.astype(jnp.int32)[None]
        return Tokens(self.position[None], segment, jnp.zeros_like(segment))


class Rule(NamedTuple):
    """The static half of a mask, and the soft cap of the scores; see `attention`."""

    causal: bool
    window: int
    soft_cap: float
    layout: str

    def capped(self, scores: jax.Array) -> jax.Array:
        """Scores squashed into +-soft_cap (Gemma 2); as they are where it is 0."""
        return self.soft_cap * jnp.tanh(scores / self.soft_cap) if self.soft_cap else scores


class Inputs(NamedTuple):
    """One call: q float[B, T, N, H], already scaled; k, v float[B, S, K, H].

    query, key: attributes [B, T] and [B, S]. bias: float[1 | B, N, T, S] or None. prefix_bias:
    float[1 | B, N, T, P] or None.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    query: Tokens
    key: Tokens
    rule: Rule
    bias: jax.Array | None = None
    prefix: Prefix | None = None
    prefix_bias: jax.Array | None = None

    def seen(self) -> jax.Array:
        """bool[B, T, S]: which keys each query may read, the prefix apart."""
        return visible(self.query, self.key, self.rule.causal, self.rule.window)

    def seen_prefix(self) -> jax.Array:
        """bool[B, T, P]: the prefix stands before every segment, whatever its number."""
        prefix = self.prefix.tokens()
        rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.q.shape[0], x.shape[1])), prefix)
        return visible(any_segment(self.query), rows, False, self.rule.window)

    def self_attention(self) -> bool:
        """Whether the keys are known to be the queries' own: the same arrays, not equal ones."""
        return all(a is b for a, b in zip(self.query, self.key, strict=True))


def any_segment(query: Tokens) -> Tokens:
    """The tokens as a prefix sees them: of segment 1, unless they are padding."""
    return query._replace(segment=(query.segment > 0).astype(jnp.int32))
