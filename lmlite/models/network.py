"""The pure functions of a language model: its module under the interceptors of a method.

B batch, T tokens, S source, P prefix tokens, D width, K key/value heads, H head size,
V vocabulary, L layers, C labels.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.attention import Prefix
from lmlite.models.blocks import KeyValue, Memory
from lmlite.models.tokens import Tokens
from lmlite.models.virtual import Virtual, embedding, stood


@dataclasses.dataclass(frozen=True)
class Network:
    """The pure functions of a model: a Linen module run under a method's interceptors.

    Hashable, so compiled programs are shared by every set of parameters of the same shapes. The
    parameters are always an argument. head: a method's own readout in place of the model's.
    virtual: learned tokens before every input; callers count positions without them, except where
    they stand in the text (`standing`). penalty: what training adds to the loss, params -> scalar.
    """

    module: nn.Module
    hooks: tuple = ()
    head: Callable | None = None
    virtual: Virtual | None = None
    penalty: Callable | None = None

    def apply(self, params: Any, method: str, *args, rngs: dict | None = None, **kwargs) -> Any:
        """Calls `method` of the module with `params` under the hooks."""
        with self._hooked(params):
            return self.module.apply({"params": params}, *args, method=method, rngs=rngs, **kwargs)

    def init(self, key: jax.Array, ids: jax.Array, tokens: Tokens) -> dict:
        """Random parameters, those of the hooks included."""
        with self._hooked():
            return self.module.init(key, ids, tokens)["params"]

    @contextlib.contextmanager
    def _hooked(self, params=None):
        with contextlib.ExitStack() as stack:
            for hook in self.hooks:
                stack.enter_context(nn.intercept_methods(hook))
            if self.standing and params is not None:
                stack.enter_context(embedding(self.virtual, params, self.module.config))
            yield

    @property
    def standing(self) -> int:
        """How many learned tokens stand in every text: ids from V on, which callers put there."""
        return self.virtual.standing(self.module.config) if self.virtual else 0

    def ahead(self, params) -> int | jax.Array:
        """How many learned tokens are before every input beside those that stand in it."""
        return self.virtual.count(params) - self.standing if self.virtual else 0

    def stood(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ids int[B, T] and mask bool[B, T] with the learned tokens that stand in every text."""
        return stood(ids, mask, self.standing, self.module.config)

    def bottom(self, params, ids: jax.Array, tokens: Tokens, rngs=None) -> jax.Array:
        """Embeddings [B, T, D] of ids int[B, T]."""
        return self.apply(params, "bottom", ids, self._placed(params, tokens), rngs=rngs)

    def trunk(
        self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None, reads=None
    ) -> jax.Array:
        """The state entering layer `stop` given the one entering layer `start`; [B, T, D].

        reads: int32[U], flat places of B * T that are asked for alone, [U, D].
        """
        return self._run(params, x, tokens, prefix, start, stop, rngs, memory, reads)[0]

    def remember(self, params, ids: jax.Array, tokens: Tokens, rngs=None) -> Memory:
        """What an encoder-decoder's decoder reads of source ids int[B, S], learned ones too."""
        states = self.apply(params, "encode", ids, tokens, rngs=rngs)
        return self.apply(params, "remember", states, tokens, rngs=rngs)

    def readout(self, params, x: jax.Array, rngs=None) -> jax.Array:
        """Logits float32[..., V] of final states [..., D]; [..., C] where a head replaces it."""
        if self.head is not None:
            return self.head(self, params, x)
        return self.apply(params, "readout", x, rngs=rngs)

    def prefill(self, params, ids: jax.Array, valid: jax.Array) -> tuple[Prefix, ...]:
        """The L prefixes of ids int[P]; valid: bool[P], false for trailing padding.

        Those of an encoder-decoder are its decoder's, which has the same ids as its source.
        """
        tokens, cross = Tokens.from_mask(valid[None]), self.module.config.cross
        memory = self.remember(params, ids[None], tokens) if cross else None
        return self.prefixes(params, self.bottom(params, ids[None], tokens), tokens, memory)

    def prefixes(self, params, x: jax.Array, tokens: Tokens, memory=None) -> tuple[Prefix, ...]:
        """The L prefixes of one row of states [1, P, D] entering layer 0."""
        _, layers = self._run(params, x, tokens, memory=memory)
        return self.module.prefixes(layers, self._placed(params, tokens))

    def read(
        self, params, ids: jax.Array, tokens: Tokens, reads: jax.Array
    ) -> tuple[jax.Array, tuple[KeyValue, ...]]:
        """Of ids int[B, T], the final states [U, D] at flat places reads int32[U] of B * T, and the
        keys and values of all of them, L pairs float[B, T, K, H].
        """
        x = self.bottom(params, ids, tokens)
        return self._run(params, x, tokens, reads=reads)

    def decode(self, params, ids: jax.Array, tokens: Tokens, cache):
        """States [B, T, D] of new tokens ids int[B, T], and the cache with them written."""
        placed = self._placed(params, tokens)
        return self.apply(params, "decode", ids, placed, cache, self.own_prefix(params))

    def _run(
        self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None, reads=None
    ):
        prefix = self.joined_prefix(params, prefix)
        kwargs = dict(prefix=prefix, start=start, stop=stop, memory=memory, reads=reads)
        return self.apply(params, "trunk", x, self._placed(params, tokens), rngs=rngs, **kwargs)

    def joined_prefix(self, params, prefix: tuple[Prefix, ...] | None):
        """The learned tokens' L prefixes with `prefix` after them; None where there is neither."""
        own = self.own_prefix(params)
        if own is None or not prefix:
            return prefix if own is None else own
        return jax.tree.map(lambda *p: jnp.concatenate(p), own, prefix)

    def own_prefix(self, params) -> tuple[Prefix, ...] | None:
        """The learned tokens' L prefixes; None where there are none, or they stand in the text."""
        if self.virtual is None or self.standing:
            return None
        return self.virtual.prefixes(dataclasses.replace(self, virtual=None), params)

    def _placed(self, params, tokens: Tokens) -> Tokens:
        return tokens._replace(position=tokens.position + self.ahead(params))
