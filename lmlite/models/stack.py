"""A stack of blocks with what stands around them: positions below, a norm above, a cache beside.

B batch, T tokens, S cache slots, D width, K key/value heads, H head size, L layers.

The stack is unrolled: every layer has a parameter tree of its own, so labels, adapters and
checkpoints can name it. Scanning would save nothing: thirty layers compile in under a second
forward and three seconds backward on two CPU cores, and a scan copies each layer's weights.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models.attention import Prefix
from lmlite.models.blocks import Block, Embed, KeyValue, Memory, RelativeBias, at
from lmlite.models.config import StackConfig
from lmlite.models.layers import Norm
from lmlite.models.rope import Turns, attention_factor, frequencies, turns
from lmlite.models.tokens import Tokens


class Cache(NamedTuple):
    """Keys and values written so far, in slots; `slot` (int32 scalar) is the next one to write.

    layers: L pairs float[B, K, S, H], heads first because that is how a step's products read them
    (a tenth of the time on CPU); tokens: attributes [B, S] of what each slot holds (segment 0 where
    it is empty). memory: what an encoder-decoder reads beside them.
    """

    layers: tuple[KeyValue, ...]
    tokens: Tokens
    slot: jax.Array
    memory: Memory | None = None

    def written(self, tokens: Tokens) -> Tokens:
        """The attributes with those of the next tokens [B, T] in place."""

        def put(old, new):
            return jax.lax.dynamic_update_slice_in_dim(old, new, self.slot, axis=1)

        return jax.tree.map(put, self.tokens, tokens)


def empty_cache(config: StackConfig, batch: int, slots: int, dtype: str) -> Cache:
    """A cache of `slots` empty slots for `batch` rows."""
    shape = (batch, config.kv_heads, slots, config.head_size)
    layers = tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers))
    blank = jnp.zeros((batch, slots), jnp.int32)
    return Cache(layers, Tokens(blank, blank, blank), jnp.zeros((), jnp.int32))


class Stack(nn.Module):
    """Blocks over embeddings. `dtype` is the dtype of matrix products; sums are float32."""

    config: StackConfig
    dtype: str = "float32"

    def setup(self):
        c = self.config
        if c.position == "learned":
            self.positions = Embed(c.max_positions + c.position_offset, c.width, self.dtype)
        if c.position == "relative":
            self.relative = RelativeBias(c)
        if c.embed_norm:
            self.embed_norm = Norm(c.norm, c.norm_eps, c.norm_offset)
        self.layers = [Block(c, i, self.dtype) for i in range(c.layers)]
        if c.norm_first:
            self.norm = Norm(c.norm, c.norm_eps, c.norm_offset)

    def placed(self, x: jax.Array, tokens: Tokens) -> jax.Array:
        """Token embeddings x [B, T, D] as they enter layer 0."""
        if self.config.position == "learned":
            x += self.positions(tokens.position + self.config.position_offset)
        return self.embed_norm(x) if self.config.embed_norm else x

    def trunk(
        self,
        x: jax.Array,
        tokens: Tokens,
        prefix: tuple[Prefix, ...] | None = None,
        cache: Cache | None = None,
        start: int = 0,
        stop: int | None = None,
        memory: Memory | None = None,
        reads: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[KeyValue, ...]]:
        """Runs layers start .. stop - 1 on x [B, T, D].

        Returns the state entering layer `stop` and, a layer, the keys and values: of these tokens
        [B, T, K, H], or of the whole cache [B, K, S, H] where one is given. reads: flat places
        int32[U] of B * T, whose states [U, D] are then returned alone, and of the last layer's MLP
        no others are computed. `memory` is for blocks that read another sequence; without it they
        raise UserError.
        """
        c = self.config
        if c.cross and memory is None:
            raise UserError(
                f"a {c.family} model answers to a source text, which this arm or method does not "
                "give it; use a decoder"
            )
        held = tokens if cache is None else cache.written(tokens)
        bias = self._bias(tokens, held, prefix) if c.position == "relative" else None
        turned = self._turned(tokens)
        out, last = [], (c.layers if stop is None else stop) - 1
        for i in range(start, last + 1):
            past = None if cache is None else (cache.layers[i], held, cache.slot)
            source = None if memory is None else (memory.layers[i], memory.tokens)
            local, here = turned[i in c.window_layers], reads if i == last else None
            x, own = self.layers[i](
                x, tokens, prefix and prefix[i], local, past, bias, source, here
            )
            out.append(own)
        return (at(x, reads) if reads is not None and not out else x), tuple(out)

    def _bias(self, tokens: Tokens, held: Tokens, prefix) -> jax.Array:
        """float32[B, N, T, P + S]: of a prefix's tokens, the same in every layer, and of `held`."""
        own = self.relative(tokens, held)
        if not prefix:
            return own
        return jnp.concatenate([self.relative(tokens, prefix[0].tokens()), own], axis=-1)

    def _turned(self, tokens: Tokens) -> tuple[Turns | None, Turns | None]:
        """What layers that see all tokens turn by, and those with a window."""
        c = self.config
        if c.position != "rope":
            return None, None
        freq = frequencies(c.head_size, c.rope_base, c.rope_scaling)
        far = turns(tokens.position, freq, attention_factor(c.rope_scaling))
        if not c.local_rope_base:
            return far, far
        return far, turns(tokens.position, frequencies(c.head_size, c.local_rope_base))

    @staticmethod
    def prefixes(layers: tuple[KeyValue, ...], tokens: Tokens) -> tuple[Prefix, ...]:
        """What `trunk` takes as a prefix, of the keys and values it returned for one row."""
        position, valid = tokens.position[0], tokens.segment[0] > 0
        return tuple(Prefix(k[0], v[0], position, valid) for k, v in layers)

    def final(self, x: jax.Array) -> jax.Array:
        """The state a probe, a pooled embedding or the head reads: past the last norm, if any."""
        return self.norm(x) if self.config.norm_first else x
