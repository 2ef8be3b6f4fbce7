"""Learned tokens before every input.

B batch, T tokens, P learned tokens, D width, V vocabulary.

Where tokens see only what is before them, what the layers make of the learned tokens is the same
for every input: it is computed once, as a prefix. Where they see each other, as in an encoder,
learned embeddings have to stand in every text: there they are ids of their own, from V on.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.attention import Prefix
from lmlite.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Virtual:
    """Learned tokens that stand before every input, in positions 0 .. length - 1.

    prefixes: (the network without them, params) -> their L prefixes. embeddings: params -> [P, D],
    what they enter the first layer as, where they are learned as embeddings. used: params -> how
    many there are, where the rest of `length` is padding. All are hashable, as `Network` is.
    """

    length: int
    prefixes: Callable[..., tuple[Prefix, ...]]
    embeddings: Callable[[Any], jax.Array] | None = None
    used: Callable[[Any], jax.Array] | None = None

    def count(self, params: Any) -> int | jax.Array:
        """The positions that they take."""
        return self.used(params) if self.used else self.length

    def standing(self, config: ModelConfig) -> int:
        """How many of them stand in every text (of an encoder-decoder, in every source)."""
        return self.length if self.embeddings and (config.cross or not config.causal) else 0


def stood(ids: jax.Array, mask: jax.Array, length: int, config: ModelConfig):
    """int[B, T], bool[B, T] with `length` learned tokens in front: [B, P + T] each."""
    if not length:
        return ids, mask
    own = jnp.broadcast_to(config.vocab_size + jnp.arange(length), (len(ids), length))
    seen = jnp.ones(own.shape, mask.dtype)
    return jnp.concatenate([own, ids], axis=1), jnp.concatenate([seen, mask], axis=1)


def embedding(
    virtual: Virtual, params: Any, config: ModelConfig
) -> contextlib.AbstractContextManager:
    """Within it, the module's token table knows the ids of the learned tokens as well."""

    def looked_up(inner, args, kwargs, context):
        if context.method_name != "__call__" or context.module.path != ("embed",):
            return inner(*args, **kwargs)
        place = args[0] - config.vocab_size
        own = virtual.embeddings(params) / config.embed_scale  # they are learned as scaled
        known = inner(jnp.minimum(args[0], config.vocab_size - 1))
        return jnp.where(place[..., None] >= 0, own[jnp.maximum(place, 0)], known)

    return nn.intercept_methods(looked_up)
