"""A bidirectional encoder: BERT, DistilBERT and RoBERTa.

B batch, T tokens, D width, V vocabulary, C labels.

It has a decoder's methods, and attention within segments alone, so packed rows, probes, adapters
and cached states work on it unchanged.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.blocks import Embed
from lmlite.models.config import EncoderConfig
from lmlite.models.layers import ACTIVATIONS, Linear, Norm, parameter
from lmlite.models.stack import Stack
from lmlite.models.tokens import Tokens


class MaskedHead(nn.Module):
    """norm(act(dense x)), and a score for each token of the vocabulary.

    score: products with the token table, to which `bias` [V] is added, or a layer of their own.
    """

    config: EncoderConfig
    dtype: str

    @nn.compact
    def __call__(self, x, score):
        c = self.config
        h = ACTIVATIONS[c.activation](Linear(c.width, True, self.dtype, name="dense")(x))
        scores = score(Norm(c.norm, c.norm_eps, name="norm")(h))
        if not c.tied:
            return scores
        return scores + parameter(self, "bias", nn.initializers.zeros, (c.vocab_size,))


class Encoder(Stack):
    """Token ids to states and, where the model has the head, masked-token logits."""

    config: EncoderConfig
    dtype: str = "float32"

    def setup(self):
        super().setup()
        c = self.config
        self.embed = Embed(c.vocab_size, c.width, self.dtype)
        if c.types:
            self.types = Embed(c.types, c.width, self.dtype)
        if c.masked_head:
            self.masked = MaskedHead(c, self.dtype)
            if not c.tied:
                self.head = Linear(c.vocab_size, True, self.dtype)
        if c.pooler:
            self.pooler = Linear(c.width, True, self.dtype)
        if c.classified:
            self.classifier = Linear(len(c.labels), True, self.dtype)

    def bottom(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Embeddings entering layer 0: ids int[B, T] -> float32[B, T, D]; all of token type 0."""
        x = self.embed(ids) * self.config.embed_scale
        if self.config.types:
            x += self.types(jnp.zeros_like(ids))
        return self.placed(x, tokens)

    def readout(self, x: jax.Array) -> jax.Array:
        """Masked-token logits of final states: [..., D] -> float32[..., V]; needs `masked_head`."""
        return self.masked(self.final(x), self.embed.attend if self.config.tied else self.head)

    def pooled(self, x: jax.Array) -> jax.Array:
        """act(W x + b) of the first token's final state: [..., D] -> float32[..., D]."""
        kind = self.config.pooler_activation
        act = jnp.tanh if kind == "tanh" else ACTIVATIONS[kind]
        return act(self.pooler(self.final(x)))

    def classify(self, x: jax.Array) -> jax.Array:
        """Scores of the labels from the first token's final state: [..., D] -> float32[..., C]."""
        return self.classifier(self.pooled(x))

    def __call__(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Logits float32[B, T, V] at every position; without a masked head, states [B, T, D]."""
        x = self.trunk(self.bottom(ids, tokens), tokens)[0]
        if self.config.pooler and self.is_initializing():
            (self.classify if self.config.classified else self.pooled)(
                x
            )  # so that its parameters exist; no logits depend on them
        return self.readout(x) if self.config.masked_head else self.final(x)
