"""An encoder-decoder: T5 and BART. A decoder, at the root of the tree, beside an `encoder` stack.

B batch, S source tokens, T target tokens, D width, V vocabulary, L layers.

A target token sees the source tokens of its own segment, so rows can hold several pairs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.blocks import Embed, Memory
from lmlite.models.config import EncDecConfig
from lmlite.models.layers import Linear, parameter
from lmlite.models.stack import Cache, Stack
from lmlite.models.tokens import Tokens


class EncDec(Stack):
    """Source and target ids to states and logits of the target."""

    config: EncDecConfig
    dtype: str = "float32"

    def setup(self):
        super().setup()
        c = self.config
        self.embed = Embed(c.vocab_size, c.width, self.dtype)
        self.encoder = Stack(c.encoder, self.dtype)
        if not c.tied:
            self.head = Linear(c.vocab_size, dtype=self.dtype)
        if c.head_bias:
            self.head_bias = parameter(self, "head_bias", nn.initializers.zeros, (1, c.vocab_size))

    def encode(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """The encoder's final states of the source: ids int[B, S] -> float32[B, S, D]."""
        x = self.encoder.placed(self.embed(ids) * self.config.embed_scale, tokens)
        return self.encoder.final(self.encoder.trunk(x, tokens)[0])

    def remember(self, x: jax.Array, tokens: Tokens) -> Memory:
        """What the L layers of the decoder read of encoded states [B, S, D]: made once a source."""
        return Memory(tuple(layer.cross.key_value(x) for layer in self.layers), tokens)

    def bottom(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Embeddings entering layer 0 of the decoder: ids int[B, T] -> float32[B, T, D]."""
        return self.placed(self.embed(ids) * self.config.embed_scale, tokens)

    def readout(self, x: jax.Array) -> jax.Array:
        """Logits of final states: [..., D] -> float32[..., V]."""
        c = self.config
        x = self.final(x) * (c.width**-0.5 if c.scaled_head else 1.0)
        logits = self.embed.attend(x) if c.tied else self.head(x)
        return logits + self.head_bias[0] if c.head_bias else logits

    def __call__(
        self,
        ids: jax.Array,
        tokens: Tokens,
        target_ids: jax.Array | None = None,
        target_tokens: Tokens | None = None,
    ) -> jax.Array:
        """Logits at every target position, float32[B, T, V]; of the first without a target."""
        if target_ids is None:
            target_ids = jnp.full((ids.shape[0], 1), self.config.start_id)
            target_tokens = Tokens.from_mask(jnp.ones(target_ids.shape, bool))
        memory = self.remember(self.encode(ids, tokens), tokens)
        x = self.bottom(target_ids, target_tokens)
        return self.readout(self.trunk(x, target_tokens, memory=memory)[0])

    def decode(self, ids, tokens, cache, prefix=None) -> tuple[jax.Array, Cache]:
        """States of new targets [B, T, D] given the cache, and the cache with them written."""
        x = self.bottom(ids, tokens)
        x, layers = self.trunk(x, tokens, prefix, cache, memory=cache.memory)
        return x, cache._replace(
            layers=layers, tokens=cache.written(tokens), slot=cache.slot + ids.shape[1]
        )
