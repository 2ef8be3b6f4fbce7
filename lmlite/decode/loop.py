"""The compiled programs of generation: one reads the prompts, one makes the tokens after them.

B prompts, R rows (B times the search's rows a prompt), T prompt tokens, S cache slots, D width,
V vocabulary.

A search (`sampling.Sampler`, `beams.Beams`) turns logits into tokens; what it remembers is its
own. The cache holds each row's prompt in its first T slots, padded on the right, and new tokens in
the slots after; positions, not slots, tell the model where a token stands. An encoder-decoder reads
the prompt with its encoder, and its decoder starts from one token; where its config forces a first
token (BART's <s>), that is the one new token it is made to choose, as in `transformers`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmlite.decode.shared import Shared
from lmlite.models.build import empty_cache
from lmlite.models.decoder import Cache
from lmlite.models.network import Network
from lmlite.models.tokens import Tokens
from lmlite.runtime import Program


class Run(NamedTuple):
    """Where generation stands: `step` tokens a row are chosen, the last is not in the cache yet.

    token: int32[R], the last of each row; position: int32[R], where it stands.
    """

    cache: Cache
    token: jax.Array
    position: jax.Array
    step: jax.Array
    search: Any


def _begin(
    network: Network,
    room: int,
    params,
    search,
    ids: jax.Array,
    length: jax.Array,
    shared: Shared | None = None,
) -> Run:
    """Reads prompts ids int32[B, T] of length int32[B] (right-padded) and chooses a token a row.

    room: slots for new tokens. shared: how to read once what the prompts share; by default each is
    read by itself. Logits are made at each prompt's last token only.
    """
    config, memory = network.module.config, None
    tokens = Tokens.from_mask(jnp.arange(ids.shape[1]) < length[:, None])
    if config.cross:
        memory_ids, mask = network.stood(ids, tokens.segment > 0)
        memory = network.remember(params, memory_ids, Tokens.from_mask(mask))
        ids, length = jnp.full_like(ids[:, :1], config.start_id), jnp.ones_like(length)
        tokens = Tokens.from_mask(length[:, None] > 0)
    B, T = ids.shape
    if shared is None:
        cache = empty_cache(config, B, T + room, network.module.dtype)._replace(memory=memory)
        x, cache = _states(network, network.own_prefix(params), params, ids, tokens, cache)
        x = x[jnp.arange(B), length - 1]
    else:
        x, cache = shared.read(network, params, length, T + room)
    logits = _forced(config, network.readout(params, x))
    seen = None
    if "repetition_penalty" in search.rule:
        blank = jnp.zeros((B, config.vocab_size), bool)
        seen = blank.at[jnp.arange(B)[:, None], ids].max(tokens.segment > 0)
    per_row = cache, logits, seen, length
    cache, logits, seen, length = _map_rows(lambda x: jnp.repeat(x, search.rows_each, 0), per_row)
    state = search.begin(B * search.rows_each, seen, room)
    return _extended(Run(cache, length, length - 1, jnp.int32(0), state), search, logits)


def _advance(network: Network, params, search, run: Run, until: jax.Array) -> Run:
    """Goes on to `until` tokens a row, or until the search wants no more. `run` is used up."""
    prefix = network.own_prefix(params)

    def more(run):
        return (run.step < until) & search.open(run.search)

    def body(run):
        ones = jnp.ones_like(run.token)[:, None]
        tokens = Tokens(run.position[:, None], ones, 0 * ones)
        x, cache = _states(network, prefix, params, run.token[:, None], tokens, run.cache)
        return _extended(run._replace(cache=cache), search, network.readout(params, x[:, 0]))

    return jax.lax.while_loop(more, body, run)


begin = Program(_begin, static=2)
advance = Program(_advance, static=1, donate=(3,))


def _states(network: Network, prefix, params, ids, tokens, cache) -> tuple[jax.Array, Cache]:
    """States [R, T, D] of new tokens after what the cache holds, and the cache with them."""
    tokens = tokens._replace(position=tokens.position + network.ahead(params))
    return network.apply(params, "decode", ids, tokens, cache, prefix)


def _forced(config, logits: jax.Array) -> jax.Array:
    """Logits [B, V] of the first token, which allow none but the one that is forced, if any."""
    if not config.cross or config.forced_id is None:
        return logits
    return jnp.full_like(logits, -jnp.inf).at[:, config.forced_id].set(0.0)


def _extended(run: Run, search, logits: jax.Array) -> Run:
    """One more token a row, chosen from logits [R, V]."""
    state, token, rows = search.extend(run.search, logits, run.step)
    cache = run.cache
    if rows is not None:  # the memory of an encoder-decoder is the same for all rows of a prompt
        moved = _map_rows(lambda x: x[rows], cache._replace(memory=None))
        cache = moved._replace(memory=cache.memory)
    return Run(cache, token, run.position + 1, run.step + 1, state)


def _map_rows(function, tree):
    """`function` of every array that has rows: all but scalars."""
    return jax.tree.map(lambda x: function(x) if x.ndim else x, tree)
