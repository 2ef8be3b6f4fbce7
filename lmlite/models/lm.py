"""A language model: module, parameters, tokenizer, and the method that adapts it, if any.

B batch, T tokens, U decoder inputs, D width, V vocabulary, C labels.
"""

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
from lmlite.models.config import ModelConfig
from lmlite.models.network import Network
from lmlite.models.quantized import decoded
from lmlite.models.tokenizer import Tokenizer
from lmlite.models.tokens import Tokens
from lmlite.models.virtual import Virtual


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
def hidden(network: Network, params, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """See `LM.hidden`; of arrays that are known to fit."""
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
        return hidden(self.network, self.params, *self._inputs(token_ids, mask, self.room))

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

        Quantized kernels are written as what they stand for.

        Raises UserError where a method's parameters are still beside the model's (merge them first)
        or the directory cannot be written.
        """
        from lmlite.models import hf  # which imports the modules' weight tables

        if self.hooks or self.head is not None or self.virtual is not None:
            raise UserError("an adapted model has no Hugging Face layout; merge its method first")
        hf.write(Path(directory), self.config, decoded(self.params))
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
