"""The transformer block in pure Linen, and the tables around it; every role is made of these.

B batch, T tokens, S source tokens, D width, N heads, K key/value heads, H head size, V vocabulary,
L layers.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmlite.models.attention import attention
from lmlite.models.config import StackConfig
from lmlite.models.layers import MLP, Linear, Norm, matmul, parameter
from lmlite.models.rope import Turns, rotate
from lmlite.models.tokens import Tokens

KeyValue = tuple[jax.Array, jax.Array]  # float[B, T, K, H] each


class Memory(NamedTuple):
    """Another sequence as the layers of a decoder read it.

    layers: L pairs float[B, S, K, H]; tokens: attributes [B, S].
    """

    layers: tuple[KeyValue, ...]
    tokens: Tokens


class Attention(nn.Module):
    """Grouped-query attention; [B, T, D] -> [B, T, D] and the tokens' own keys and values.

    turns: what rotary embeddings turn queries and keys by. past: (cached keys and values,
    attributes of what they hold with this call's tokens, slot to write). source: (keys and values,
    attributes) to read in place of its own, from `key_value`.
    """

    config: StackConfig
    layer: int
    dtype: str

    def setup(self):
        c = self.config
        linear = partial(Linear, dtype=self.dtype)
        self.q = linear(c.heads * c.head_size, c.qkv_bias)
        self.k = linear(c.kv_heads * c.head_size, c.qkv_bias)
        self.v = linear(c.kv_heads * c.head_size, c.qkv_bias)
        self.o = linear(c.width, c.out_bias)
        if c.qk_norm:
            self.q_norm = Norm("rms", c.norm_eps, c.norm_offset)
            self.k_norm = Norm("rms", c.norm_eps, c.norm_offset)

    def __call__(self, x, tokens, prefix=None, turns=None, past=None, bias=None, source=None):
        c = self.config
        q = self._heads(self.q(x), c.heads)
        q = self.q_norm(q) if c.qk_norm else q
        if source is not None:
            own = None
            (k, v), key = source
        else:
            q, own, key = _rotated(q, turns), self.key_value(x, turns), tokens
            k, v = own
            if past is not None:
                own, key = _written(past[0], own, past[2]), past[1]
                k, v = (x.swapaxes(1, 2) for x in own)
        y = attention(
            q.astype(self.dtype), k, v, tokens, key,
            scale=c.query_scale or c.head_size**-0.5,
            causal=c.causal and source is None,
            window=c.window if self._local else 0,
            soft_cap=c.attn_soft_cap,
            bias=bias,
            prefix=prefix,
        )  # fmt: skip
        return self.o(y.reshape(*x.shape[:-1], c.heads * c.head_size)), own

    def key_value(self, x: jax.Array, turns: Turns | None = None) -> KeyValue:
        """Keys and values of states [B, S, D]."""
        c = self.config
        k = self._heads(self.k(x), c.kv_heads)
        v = self._heads(self.v(x), c.kv_heads)
        k = self.k_norm(k) if c.qk_norm else k
        k = _rotated(k, turns)
        return k.astype(self.dtype), v.astype(self.dtype)

    @property
    def _local(self) -> bool:
        return self.layer in self.config.window_layers

    def _heads(self, y, heads):
        return y.reshape(*y.shape[:-1], heads, self.config.head_size)


def _rotated(x: jax.Array, turns: Turns | None) -> jax.Array:
    return x if turns is None else rotate(x, turns)


def _written(cached: KeyValue, new: KeyValue, slot: jax.Array) -> KeyValue:
    """Cached [B, K, S, H] with new [B, T, K, H] in place."""
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=2)
    return put(cached[0], new[0].swapaxes(1, 2)), put(cached[1], new[1].swapaxes(1, 2))


class Block(nn.Module):
    """Attention, attention to another sequence where there is one, and an MLP, each residual.

    reads: int32[U], flat places in B * T: the MLP and the result, [U, D], are of those alone.
    """

    config: StackConfig
    layer: int
    dtype: str

    def setup(self):
        c = self.config
        norm = partial(Norm, c.norm, c.norm_eps, c.norm_offset)
        self.attn_norm, self.mlp_norm = norm(), norm()
        self.attn = Attention(c, self.layer, self.dtype)
        if c.cross:
            self.cross_norm = norm()
            self.cross = Attention(c, self.layer, self.dtype)
        self.mlp = MLP(c.hidden, c.activation, c.gated, c.mlp_bias, self.dtype)
        if c.post_norms:
            self.attn_post_norm, self.mlp_post_norm = norm(), norm()

    def __call__(
        self, x, tokens, prefix=None, turns=None, past=None, bias=None, source=None, reads=None
    ):
        y, own = self.attn(self._enter("attn", x), tokens, prefix, turns, past, bias)
        x = self._leave("attn", x, y)
        if self.config.cross:
            y, _ = self.cross(self._enter("cross", x), tokens, source=source)
            x = self._leave("cross", x, y)
        x = x if reads is None else at(x, reads)
        y = self.mlp(self._enter("mlp", x))
        return self._leave("mlp", x, y), own

    def _enter(self, part, x):
        return getattr(self, f"{part}_norm")(x) if self.config.norm_first else x

    def _leave(self, part, x, y):
        """x + y, normalised (BERT), or with y normalised (Gemma)."""
        if not self.config.norm_first:
            return getattr(self, f"{part}_norm")(x + y)
        return x + (getattr(self, f"{part}_post_norm")(y) if self.config.post_norms else y)


def at(x: jax.Array, reads: jax.Array) -> jax.Array:
    """States [B, T, D] at flat places int32[U] of B * T: [U, D]."""
    return x.reshape(-1, x.shape[-1])[reads]


class Embed(nn.Module):
    """A table `embedding` [V, D]: looks ids up, or scores states against every row."""

    size: int
    width: int
    dtype: str

    def setup(self):
        shape = (self.size, self.width)
        self.embedding = parameter(self, "embedding", nn.initializers.normal(0.02), shape)

    def __call__(self, ids):
        return self.embedding[ids].astype(jnp.float32)

    def attend(self, x):
        """Scores of every row: [..., D] -> float32[..., V]."""
        return matmul(x, self.embedding, self.dtype, transposed=True)


class RelativeBias(nn.Module):
    """A bias a head by bucket of distance, `embedding` [buckets, N]: T5, arXiv:1910.10683."""

    config: StackConfig

    @nn.compact
    def __call__(self, query: Tokens, key: Tokens) -> jax.Array:
        """float32[B, N, T, S] of query tokens [B, T] and key tokens [B, S]."""
        c = self.config
        shape = (c.relative_buckets, c.heads)
        table = parameter(self, "embedding", nn.initializers.normal(0.02), shape)
        ahead = key.position[:, None, :] - query.position[:, :, None]
        bucket = _bucket(ahead, c.relative_buckets, c.relative_distance, not c.causal)
        return jnp.moveaxis(table[bucket].astype(jnp.float32), -1, 1)


def _bucket(ahead: jax.Array, buckets: int, limit: int, both_ways: bool) -> jax.Array:
    """Half of the buckets hold one distance each, the others logarithmic ranges up to `limit`.

    Where tokens see `both_ways`, each direction has half of them.
    """
    buckets = buckets // 2 if both_ways else buckets
    side = jnp.where(ahead > 0, buckets, 0) if both_ways else 0
    distance = jnp.abs(ahead) if both_ways else jnp.maximum(-ahead, 0)
    exact = buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    far = exact + (jnp.log(ratio) / np.log(limit / exact) * (buckets - exact)).astype(jnp.int32)
    return side + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))
