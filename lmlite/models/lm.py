"""A language model: module, parameters, tokenizer, and the method that adapts it, if any.

B batch, T tokens, P prefix tokens, D width, V vocabulary, U read positions,
L layers, C labels.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmlite.errors import UserError
from lmlite.models.attention import Prefix
from lmlite.models.blocks import Memory
from lmlite.models.config import ModelConfig
from lmlite.models.tokenizer import Tokenizer
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

    def stood(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ids int[B, T] and mask bool[B, T] with the learned tokens that stand in every text."""
        return stood(ids, mask, self.standing, self.module.config)

    def bottom(self, params, ids: jax.Array, tokens: Tokens, rngs=None) -> jax.Array:
        """Embeddings [B, T, D] of ids int[B, T]."""
        return self.apply(params, "bottom", ids, self._placed(tokens), rngs=rngs)

    def trunk(
        self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None
    ) -> jax.Array:
        """The state entering layer `stop` given the one entering layer `start`; [B, T, D]."""
        return self._run(params, x, tokens, prefix, start, stop, rngs, memory)[0]

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
        return self.module.prefixes(layers, self._placed(tokens))

    def decode(self, params, ids: jax.Array, tokens: Tokens, cache):
        """States [B, T, D] of new tokens ids int[B, T], and the cache with them written."""
        placed = self._placed(tokens)
        return self.apply(params, "decode", ids, placed, cache, self.own_prefix(params))

    def _run(self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None):
        prefix = self.joined_prefix(params, prefix)
        kwargs = dict(prefix=prefix, start=start, stop=stop, memory=memory)
        return self.apply(params, "trunk", x, self._placed(tokens), rngs=rngs, **kwargs)

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

    def _placed(self, tokens: Tokens) -> Tokens:
        shift = self.virtual.length - self.standing if self.virtual else 0
        return tokens._replace(position=tokens.position + shift)


@functools.partial(jax.jit, static_argnums=0)
def _logits(network: Network, params, ids, mask):
    return network.apply(params, "readout", _states(network, params, ids, mask))


@functools.partial(jax.jit, static_argnums=0)
def _target_logits(network: Network, params, ids, mask, target_ids):
    ids, mask = network.stood(ids, mask)
    memory = network.remember(params, ids, Tokens.from_mask(mask))
    tokens = Tokens.from_mask(jnp.ones(target_ids.shape, bool))
    x = network.bottom(params, target_ids, tokens)
    return network.apply(params, "readout", network.trunk(params, x, tokens, memory=memory))


@functools.partial(jax.jit, static_argnums=0)
def _hidden(network: Network, params, ids, mask):
    if network.module.config.cross:
        ids, mask = network.stood(ids, mask)
        x = network.apply(params, "encode", ids, Tokens.from_mask(mask))
        return x[:, network.standing :]
    return network.apply(params, "final", _states(network, params, ids, mask))


@functools.partial(jax.jit, static_argnums=0)
def _classified(network: Network, params, ids, mask):
    ids, mask = network.stood(ids, mask)
    x = _run(network, params, ids, mask)
    return network.apply(params, "classify", x[jnp.arange(len(ids)), mask.argmax(1)])


def _states(network: Network, params, ids, mask) -> jax.Array:
    """[B, T, D]: what the last layer makes of ids [B, T]."""
    return _run(network, params, *network.stood(ids, mask))[:, network.standing :]


def _run(network: Network, params, ids, mask) -> jax.Array:
    tokens = Tokens.from_mask(mask)
    return network.trunk(params, network.bottom(params, ids, tokens), tokens)


@dataclasses.dataclass(frozen=True)
class LM:
    """What `lmlite.load` returns.

    source: where the weights came from. hooks: the interceptors of the methods attached to it;
    head: a method's own readout, (network, params, states [..., D]) -> logits [..., C].
    """

    module: nn.Module
    params: Any
    config: ModelConfig
    tokenizer: Tokenizer | None = None
    source: str = ""
    hooks: tuple = ()
    head: Callable | None = None
    virtual: Virtual | None = None
    penalty: Callable | None = None

    @property
    def network(self) -> Network:
        """The pure functions, without the parameters."""
        return Network(self.module, self.hooks, self.head, self.virtual, self.penalty)

    @property
    def text(self) -> Tokenizer:
        """The tokenizer; raises UserError where the model came without one."""
        if self.tokenizer is None:
            raise UserError(f"model {self.source!r} has no tokenizer; add tokenizer.json to it")
        return self.tokenizer

    @property
    def room(self) -> int:
        """The tokens of the longest input: the positions that learned tokens leave."""
        return self.config.max_positions - self.network.standing

    def logits(self, token_ids, mask=None, target_ids=None) -> jax.Array:
        """Logits of every position: int[B, T], bool[B, T] -> float32[B, T, V]; padding on any side.

        target_ids: int[B, U], the decoder's inputs of an encoder-decoder; then float32[B, U, V].
        Raises UserError for an encoder without masked-token head, and for bad ids.
        """
        if not getattr(self.config, "masked_head", True):
            raise UserError(f"model {self.source!r} has no masked-token head; use hidden or embed")
        if (target_ids is not None) != self.config.cross:
            needed = "needs" if self.config.cross else "takes no"
            raise UserError(f"a {self.config.family} model {needed} target_ids")
        ids, mask = self._inputs(token_ids, mask, self.room)
        if target_ids is None:
            return _logits(self.network, self.params, ids, mask)
        targets, _ = self._inputs(target_ids, None, self.config.max_positions, "target_ids")
        if len(targets) != len(ids):
            raise UserError(f"target_ids has {len(targets)} rows and token_ids {len(ids)}")
        return _target_logits(self.network, self.params, ids, mask, targets)

    def hidden(self, token_ids, mask=None) -> jax.Array:
        """Final states, the encoder's where there is one: int, bool[B, T] -> float32[B, T, D]."""
        return _hidden(self.network, self.params, *self._inputs(token_ids, mask, self.room))

    def classify(self, token_ids, mask=None) -> jax.Array:
        """Scores of `config.labels` by a stored head: int, bool[B, T] -> float32[B, C].

        The head reads the first token, which is a learned one where these stand in the text.
        Raises UserError where the model has no such head.
        """
        if not getattr(self.config, "classified", False):
            raise UserError(f"model {self.source!r} has no classification head; tune one")
        return _classified(self.network, self.params, *self._inputs(token_ids, mask, self.room))

    def embed(
        self, texts: Sequence[str], pooling: str = "mean", normalize: bool = True
    ) -> np.ndarray:
        """One vector a text, float32[n, D]: `pooling` ('mean', 'cls', 'last') of its final states.

        normalize: to length 1, so that dot products are cosines. Raises UserError for an unknown
        pooling, an empty text or one longer than the context.
        """
        from lmlite.models.pooling import embed  # here, because it is made of models

        return embed(self, texts, pooling, normalize)

    def generate(self, prompts, **options) -> list[str]:
        """The continuation of each prompt: a text, or a list of texts or of token ids.

        options: those of `lmlite.decode.generate`, such as max_new_tokens=64, temperature=0.0,
        top_p=1.0, beams=1, stop=(), seed=0, chat=False, stream=None.
        Raises UserError for bad options, an empty prompt or one too long for the context.
        """
        from lmlite.decode import generate  # here, because it is made of models

        self.text  # noqa: B018 - a model without a tokenizer is refused before any work
        return [one.text for one in generate(self, prompts, **options)]

    def save(self, directory: str | Path) -> None:
        """Writes a Hugging Face directory: config, safetensors and, if there is one, the tokenizer.

        Raises UserError where a method's parameters are still beside the model's (merge them first)
        or the directory cannot be written.
        """
        from lmlite.models import hf  # which imports the modules' weight tables

        if self.hooks or self.head is not None or self.virtual is not None:
            raise UserError("an adapted model has no Hugging Face layout; merge its method first")
        hf.write(Path(directory), self.config, self.params)
        if self.tokenizer is not None:
            self.tokenizer.save(Path(directory))

    def _inputs(self, token_ids, mask, room, name="token_ids"):
        ids = jnp.asarray(token_ids, jnp.int32)
        mask = jnp.ones(ids.shape, bool) if mask is None else jnp.asarray(mask, bool)
        if ids.ndim != 2 or ids.shape != mask.shape:
            raise UserError(f"{name} {ids.shape} and mask {mask.shape} must both be [B, T]")
        if ids.shape[1] > room:
            raise UserError(
                f"{name} has {ids.shape[1]} positions, the model's context is {room}; shorten the "
                "input"
            )
        if ids.size and not (0 <= int(ids.min()) and int(ids.max()) < self.config.vocab_size):
            raise UserError(
                f"{name} must lie in 0..{self.config.vocab_size - 1} (the vocabulary), "
                f"found {int(ids.min())}..{int(ids.max())}"
            )
        return ids, mask
