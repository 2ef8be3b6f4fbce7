"""A decoder-only transformer in pure Linen: Llama and its relatives, Gemma and GPT-2.

B batch, T tokens, S cache slots, P prefix tokens, D width, N heads, K key/value heads, H head size,
V vocabulary, L layers.

The stack is unrolled: every layer has a parameter tree of its own, so labels, adapters and
checkpoints can name it. Scanning would save nothing: thirty layers compile in under a second
forward and three seconds backward on two CPU cores, and a scan copies each layer's weights.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.attention import Prefix, attention
from lmlite.models.config import DecoderConfig
from lmlite.models.layers import MLP, Linear, Norm
from lmlite.models.rope import frequencies, rotate
from lmlite.models.tokens import Tokens

KeyValue = tuple[jax.Array, jax.Array]  # float[B, T, K, H] each


class Cache(NamedTuple):
    """Keys and values written so far, in slots; `slot` (int32 scalar) is the next one to write.

    layers: L pairs float[B, S, K, H]; tokens: attributes [B, S] of what each slot holds (segment 0
    where it is empty).
    """

    layers: tuple[KeyValue, ...]
    tokens: Tokens
    slot: jax.Array


class Attention(nn.Module):
    """Grouped-query self-attention; [B, T, D] -> [B, T, D] and its own keys and values."""

    config: DecoderConfig
    layer: int
    dtype: str

    @nn.compact
    def __call__(self, x, tokens, prefix=None, past=None):
        c = self.config
        local = self.layer in c.window_layers

        def project(name, heads, bias):
            y = Linear(heads * c.head_size, bias, self.dtype, name=name)(x)
            return y.reshape(*x.shape[:-1], heads, c.head_size)

        q = project("q", c.heads, c.qkv_bias)
        k = project("k", c.kv_heads, c.qkv_bias)
        v = project("v", c.kv_heads, c.qkv_bias).astype(self.dtype)
        if c.qk_norm:
            q = Norm("rms", c.norm_eps, c.norm_offset, name="q_norm")(q)
            k = Norm("rms", c.norm_eps, c.norm_offset, name="k_norm")(k)
        if c.position == "rope":
            base = c.local_rope_base if local and c.local_rope_base else c.rope_base
            scaling = () if local and c.local_rope_base else c.rope_scaling
            freq = frequencies(c.head_size, base, scaling)
            q, k = rotate(q, tokens.position, freq), rotate(k, tokens.position, freq)
        q, k = q.astype(self.dtype), k.astype(self.dtype)
        own = k, v
        source = tokens
        if past is not None:
            (k, v), source, slot = past
            k = jax.lax.dynamic_update_slice_in_dim(k, own[0], slot, axis=1)
            v = jax.lax.dynamic_update_slice_in_dim(v, own[1], slot, axis=1)
            own = k, v
        y = attention(
            q, k, v, tokens, source,
            scale=c.query_scale or c.head_size**-0.5,
            window=c.window if local else 0,
            soft_cap=c.attn_soft_cap,
            prefix=prefix,
        )  # fmt: skip
        y = y.reshape(*x.shape[:-1], c.heads * c.head_size)
        return Linear(c.width, c.out_bias, self.dtype, name="o")(y), own


class Block(nn.Module):
    """x + attn(norm(x)), then x + mlp(norm(x)); Gemma normalises what it adds as well."""

    config: DecoderConfig
    layer: int
    dtype: str

    @nn.compact
    def __call__(self, x, tokens, prefix=None, past=None):
        c = self.config

        def norm(name, y):
            return Norm(c.norm, c.norm_eps, c.norm_offset, name=name)(y)

        attn = Attention(c, self.layer, self.dtype, name="attn")
        y, own = attn(norm("attn_norm", x), tokens, prefix, past)
        x = x + (norm("attn_post_norm", y) if c.post_norms else y)
        mlp = MLP(c.hidden, c.activation, c.gated, c.mlp_bias, self.dtype, name="mlp")
        y = mlp(norm("mlp_norm", x))
        return x + (norm("mlp_post_norm", y) if c.post_norms else y), own


class Embed(nn.Module):
    """A table `embedding` [V, D]: looks ids up, or scores states against every row."""

    size: int
    width: int
    dtype: str

    def setup(self):
        shape = (self.size, self.width)
        self.embedding = self.param("embedding", nn.initializers.normal(0.02), shape)

    def __call__(self, ids):
        return self.embedding[ids].astype(jnp.float32)

    def attend(self, x):
        dims = (((x.ndim - 1,), (1,)), ((), ()))
        x, table = x.astype(self.dtype), self.embedding.astype(self.dtype)
        return jax.lax.dot_general(x, table, dims, preferred_element_type=jnp.float32)


class Decoder(nn.Module):
    """Token ids to states and logits. `dtype` is the dtype of matrix products; sums are float32."""

    config: DecoderConfig
    dtype: str = "float32"

    def setup(self):
        c = self.config
        self.embed = Embed(c.vocab_size, c.width, self.dtype)
        if c.position == "learned":
            self.positions = Embed(c.max_positions, c.width, self.dtype)
        self.layers = [Block(c, i, self.dtype) for i in range(c.layers)]
        self.norm = Norm(c.norm, c.norm_eps, c.norm_offset)
        if not c.tied:
            self.head = Linear(c.vocab_size, dtype=self.dtype)

    def bottom(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Embeddings entering layer 0: ids int[B, T] -> float32[B, T, D]."""
        x = self.embed(ids) * self.config.embed_scale
        if self.config.position == "learned":
            x += self.positions(tokens.position)
        return x

    def trunk(
        self,
        x: jax.Array,
        tokens: Tokens,
        prefix: tuple[Prefix, ...] | None = None,
        cache: Cache | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[jax.Array, tuple[KeyValue, ...]]:
        """Runs layers start .. stop - 1 on x [B, T, D].

        Returns the state entering layer `stop` and, a layer, the keys and values: of these tokens
        [B, T, K, H], or of the whole cache [B, S, K, H] where one is given.
        """
        source = None if cache is None else _written(cache, tokens)
        out = []
        for i in range(start, self.config.layers if stop is None else stop):
            past = None if cache is None else (cache.layers[i], source, cache.slot)
            x, own = self.layers[i](x, tokens, prefix and prefix[i], past)
            out.append(own)
        return x, tuple(out)

    def readout(self, x: jax.Array) -> jax.Array:
        """Logits of final states: [..., D] -> float32[..., V]."""
        c = self.config
        x = self.norm(x)
        logits = self.embed.attend(x) if c.tied else self.head(x)
        return c.final_soft_cap * jnp.tanh(logits / c.final_soft_cap) if c.final_soft_cap else logits

    def final(self, x: jax.Array) -> jax.Array:
        """The final norm alone: the state a probe or a pooled embedding reads."""
        return self.norm(x)

    def __call__(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Logits at every position: ids int[B, T] -> float32[B, T, V]."""
        return self.readout(self.trunk(self.bottom(ids, tokens), tokens)[0])

    def decode(self, ids, tokens, cache, prefix=None) -> tuple[jax.Array, Cache]:
        """States of new tokens [B, T, D] given the cache, and the cache with them written."""
        x, layers = self.trunk(self.bottom(ids, tokens), tokens, prefix, cache)
        return x, Cache(layers, _written(cache, tokens), cache.slot + ids.shape[1])


def _written(cache: Cache, tokens: Tokens) -> Tokens:
    def put(old, new):
        return jax.lax.dynamic_update_slice_in_dim(old, new, cache.slot, axis=1)

    return jax.tree.map(put, cache.tokens, tokens)


def empty_cache(config: DecoderConfig, batch: int, slots: int, dtype: str) -> Cache:
    """A cache of `slots` empty slots for `batch` rows."""
    shape = (batch, slots, config.kv_heads, config.head_size)
    layers = tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers))
    blank = jnp.zeros((batch, slots), jnp.int32)
    return Cache(layers, Tokens(blank, blank, blank), jnp.zeros((), jnp.int32))
