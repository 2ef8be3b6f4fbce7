"""A decoder-only language model: Llama and its relatives, Gemma and GPT-2.

B batch, T tokens, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp

from lmlite.models.blocks import Embed
from lmlite.models.config import DecoderConfig
from lmlite.models.layers import Linear
from lmlite.models.stack import Cache, Stack, empty_cache
from lmlite.models.tokens import Tokens

__all__ = ["Cache", "Decoder", "empty_cache"]


class Decoder(Stack):
    """Token ids to states and logits."""

    config: DecoderConfig
    dtype: str = "float32"

    def setup(self):
        super().setup()
        c = self.config
        self.embed = Embed(c.vocab_size, c.width, self.dtype)
        if not c.tied:
            self.head = Linear(c.vocab_size, dtype=self.dtype)

    def bottom(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Embeddings entering layer 0: ids int[B, T] -> float32[B, T, D]."""
        return self.placed(self.embed(ids) * self.config.embed_scale, tokens)

    def readout(self, x: jax.Array) -> jax.Array:
        """Logits of final states: [..., D] -> float32[..., V]."""
        c = self.config
        x = self.final(x)
        logits = self.embed.attend(x) if c.tied else self.head(x)
        cap = c.final_soft_cap
        return cap * jnp.tanh(logits / cap) if cap else logits

    def __call__(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Logits at every position: ids int[B, T] -> float32[B, T, V]."""
        return self.readout(self.trunk(self.bottom(ids, tokens), tokens)[0])

    def decode(self, ids, tokens, cache, prefix=None) -> tuple[jax.Array, Cache]:
        """States of new tokens [B, T, D] given the cache, and the cache with them written."""
        x, layers = self.trunk(self.bottom(ids, tokens), tokens, prefix, cache)
        return x, Cache(layers, cache.written(tokens), cache.slot + ids.shape[1])
