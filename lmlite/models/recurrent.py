"""A recurrent language model: layers of LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al.
2014, arXiv:1406.1078) cells, in the form of cuDNN and PyTorch, with two biases.

B batch, T tokens, E embedding width, D width, C vectors of a state (LSTM 2, GRU 1), G gates,
V vocabulary, L layers.

It has a decoder's methods. What a decoder's tokens read of the past through attention, here is one
state a sequence; so packed rows, answer choices as branches, shared prefixes and generation work
unchanged, provided that a sequence stands in its row in its own order. A prefix is the state after
it, a cache the state so far.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.models.blocks import Embed, at
from lmlite.models.config import RecurrentConfig
from lmlite.models.layers import Linear, uniform_fan_in
from lmlite.models.tokens import Tokens


class RecurrentCache(NamedTuple):
    """layers: the state of each layer, float32[B, C, D]. memory: of another sequence, none here."""

    layers: tuple[jax.Array, ...]
    memory: None = None


def empty_cache(config: RecurrentConfig, batch: int) -> RecurrentCache:
    """The cache before the first token."""
    shape = (batch, len(CELLS[config.cell].state), config.width)
    return RecurrentCache(tuple(jnp.zeros(shape) for _ in range(config.layers)))


def _lstm(given: jax.Array, product: jax.Array, state: jax.Array) -> jax.Array:
    """Gates in the order input, forget, candidate, output; the state is (output, cell)."""
    i, f, g, o = jnp.split(given + product, 4, axis=-1)
    cell = nn.sigmoid(f) * state[:, 1] + nn.sigmoid(i) * jnp.tanh(g)
    return jnp.stack([nn.sigmoid(o) * jnp.tanh(cell), cell], axis=1)


def _gru(given: jax.Array, product: jax.Array, state: jax.Array) -> jax.Array:
    """Gates in the order reset, update, candidate; the reset gate acts on the product."""
    r_in, z_in, n_in = jnp.split(given, 3, axis=-1)
    r, z, n = jnp.split(product, 3, axis=-1)
    update = nn.sigmoid(z_in + z)
    candidate = jnp.tanh(n_in + nn.sigmoid(r_in + r) * n)
    return ((1 - update) * candidate + update * state[:, 0])[:, None]


class Cell(NamedTuple):
    """step: (input products [B, G * D], state products [B, G * D], state [B, C, D]) -> state."""

    step: object
    gates: int
    state: tuple[str, ...]


CELLS = {"lstm": Cell(_lstm, 4, ("output", "cell")), "gru": Cell(_gru, 3, ("output",))}


class Carry(NamedTuple):
    """What a token leaves to the next: the newest state, the newest of the trunk, and of which
    segment and branch it was.
    """

    newest: jax.Array
    trunk: jax.Array
    segment: jax.Array
    branch: jax.Array


class Layer(nn.Module):
    """One recurrent layer over rows: `input` is applied to all tokens at once, `state` in turn."""

    config: RecurrentConfig
    dtype: str

    def setup(self):
        out = CELLS[self.config.cell].gates * self.config.width
        self.input = Linear(out, True, self.dtype, uniform_fan_in)
        self.state = Linear(out, True, self.dtype, uniform_fan_in)

    def __call__(self, x: jax.Array, tokens: Tokens, first: jax.Array):
        """x [B, T, E or D], first [B, C, D] before each segment -> ([B, T, D], last [B, C, D])."""
        cell = CELLS[self.config.cell]

        def step(layer, carry, now):
            given, segment, branch = now
            new_segment = segment != carry.segment
            trunk = _choose(new_segment, first, carry.trunk)
            goes_on = ~new_segment & (branch == carry.branch) & (branch > 0)
            before = _choose(goes_on, carry.newest, trunk)
            after = cell.step(given, layer.state(before[:, 0]), before)
            there = Carry(after, _choose(branch == 0, after, trunk), segment, branch)
            # Padding leaves nothing, so that it may stand on any side.
            carry = jax.tree.map(lambda new, old: _choose(segment > 0, new, old), there, carry)
            return carry, after[:, 0]

        nothing = jnp.zeros_like(tokens.segment[:, 0])
        carry = Carry(first, first, nothing, nothing)
        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": False},
            in_axes=1,
            out_axes=1,
        )
        carry, outputs = scan(self, carry, (self.input(x), tokens.segment, tokens.branch))
        return outputs, carry.newest


def _choose(which: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.where(which.reshape(-1, *[1] * (one.ndim - 1)), one, other)


class Recurrent(nn.Module):
    """Token ids to states and logits. `dtype` is that of matrix products; states are float32."""

    config: RecurrentConfig
    dtype: str = "float32"

    def setup(self):
        c = self.config
        self.embed = Embed(c.vocab_size, c.embed_width, self.dtype)
        self.layers = [Layer(c, self.dtype) for _ in range(c.layers)]
        if not c.tied:
            self.head = Linear(c.vocab_size, dtype=self.dtype)

    def bottom(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Embeddings entering layer 0: ids int[B, T] -> float32[B, T, E]."""
        return self.embed(ids)

    def trunk(
        self, x, tokens, prefix=None, cache=None, start=0, stop=None, memory=None, reads=None
    ):
        """Runs layers start .. stop - 1 on x: their output [B, T, D], and the last state of each.

        prefix: states [1, C, D] a layer, before every segment; cache: those of the rows so far.
        reads: int32[U], flat places of B * T that are returned alone, [U, D].
        """
        c, out = self.config, []
        known = cache.layers if cache is not None else prefix or empty_cache(c, 1).layers
        shape = (x.shape[0], *known[0].shape[1:])
        for i in range(start, c.layers if stop is None else stop):
            x, state = self.layers[i](x, tokens, jnp.broadcast_to(known[i], shape))
            out.append(state)
        return (x if reads is None else at(x, reads)), tuple(out)

    def final(self, x: jax.Array) -> jax.Array:
        """The state a probe, a pooled embedding or the head reads."""
        return x

    def readout(self, x: jax.Array) -> jax.Array:
        """Logits of final states: [..., D] -> float32[..., V]."""
        return self.embed.attend(x) if self.config.tied else self.head(x)

    def __call__(self, ids: jax.Array, tokens: Tokens) -> jax.Array:
        """Logits at every position: ids int[B, T] -> float32[B, T, V]."""
        return self.readout(self.trunk(self.bottom(ids, tokens), tokens)[0])

    def decode(self, ids, tokens, cache, prefix=None) -> tuple[jax.Array, RecurrentCache]:
        """States of new tokens [B, T, D] after those of the cache, and the cache with them."""
        x, states = self.trunk(self.bottom(ids, tokens), tokens, cache=cache)
        return x, RecurrentCache(states)

    @staticmethod
    def prefixes(states: tuple[jax.Array, ...], tokens: Tokens) -> tuple[jax.Array, ...]:
        """What `trunk` takes as a prefix, of the states that it returned for one row."""
        return states
