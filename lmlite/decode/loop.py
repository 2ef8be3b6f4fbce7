"""The compiled programs of generation: one reads the prompts, one makes the tokens after them.

B prompts, R rows (B times the search's rows a prompt), T prompt tokens, S cache slots, V vocabulary.

A search (`sampling.Sampler`, `beams.Beams`) turns logits into tokens; what it remembers is its
own. The cache holds each row's prompt in its first T slots, padded on the right, and new tokens in
the slots after; positions, not slots, tell the model where a token stands.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmlite.models.decoder import Cache, empty_cache
from lmlite.models.lm import Network
from lmlite.models.tokens import Tokens


class Run(NamedTuple):
    """Where generation stands: `step` tokens a row are chosen, the last is not in the cache yet.

    token: int32[R], the last of each row; position: int32[R], where it stands.
    """

    cache: Cache
    token: jax.Array
    position: jax.Array
    step: jax.Array
    search: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def begin(network: Network, slots: int, params, search, ids: jax.Array, length: jax.Array) -> Run:
    """Reads prompts ids int32[B, T] of length int32[B] (right-padded) and chooses a token a row.

    Logits are made at each prompt's last token only.
    """
    B, T = ids.shape
    config = network.module.config
    mask = jnp.arange(T) < length[:, None]
    cache = empty_cache(config, B, slots, network.module.dtype)
    x, cache = network.apply(params, "decode", ids, Tokens.from_mask(mask), cache)
    logits = network.readout(params, x[jnp.arange(B), length - 1])
    seen = None
    if "repetition_penalty" in search.rule:
        blank = jnp.zeros((B, config.vocab_size), bool)
        seen = blank.at[jnp.arange(B)[:, None], ids].max(mask)
    cache, logits, seen, length = _repeated((cache, logits, seen, length), search.rows_each)
    state = search.begin(B * search.rows_each, seen, slots - T)
    return _extended(Run(cache, length, length - 1, jnp.int32(0), state), search, logits)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(network: Network, params, search, run: Run, until: jax.Array) -> Run:
    """Goes on to `until` tokens a row, or until the search wants no more. `run` is used up."""

    def more(run):
        return (run.step < until) & search.open(run.search)

    def body(run):
        one = jnp.ones_like(run.token)
        tokens = Tokens(run.position[:, None], one[:, None], 0 * one[:, None])
        x, cache = network.apply(params, "decode", run.token[:, None], tokens, run.cache)
        return _extended(run._replace(cache=cache), search, network.readout(params, x[:, 0]))

    return jax.lax.while_loop(more, body, run)


def _extended(run: Run, search, logits: jax.Array) -> Run:
    """One more token a row, chosen from logits [R, V]."""
    state, token, rows = search.extend(run.search, logits, run.step)
    cache = run.cache if rows is None else _per_row(lambda x: x[rows], run.cache)
    return Run(cache, token, run.position + 1, run.step + 1, state)


def _repeated(tree, times: int):
    return tree if times == 1 else _per_row(lambda x: jnp.repeat(x, times, axis=0), tree)


def _per_row(function, tree):
    """`function` of every array that has rows: all but scalars."""
    return jax.tree.map(lambda x: function(x) if x.ndim else x, tree)
