"""Log-probabilities of answer choices: one packed pass, the shared prefix prefilled once.

R rows, T tokens, P prefix tokens, U read positions, M targets a read, C choices, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.answers import NOT_KEPT, Answers
from lmlite.data.item import Item
from lmlite.data.pack import Batch, pack
from lmlite.data.rows import BATCH_TOKENS, layout
from lmlite.errors import UserError
from lmlite.models.attention import Prefix
from lmlite.models.blocks import Memory
from lmlite.models.network import Network
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, Program

READOUT_ROWS = 64  # read positions whose [V] logits exist at one time
_READS_MULTIPLE = 16  # a batch of short prompts has about as many, and each costs a row of logits
_PREFIX_MULTIPLE = 256  # prefixes are padded to this, so that draws share a compiled program


def target_logprobs(
    network: Network, params, states: jax.Array, targets: jax.Array, rngs=None, greedy=False
) -> jax.Array:
    """log p(target) at each read: states [U, D], targets int[U, M] -> float32[U, M].

    greedy: float32[2, U, M], after them 1 where greedy decoding takes another token (of equally
    likely ones it takes the first, as in lm-evaluation-harness), else 0.
    Logits [., V] are made for a few reads at a time: a large label set never holds [U, V] at once.
    """

    def block(xt):
        x, t = xt
        logp = jax.nn.log_softmax(network.readout(params, x, rngs), axis=-1)
        chosen = jnp.take_along_axis(logp, t, axis=-1)
        if not greedy:
            return chosen
        return jnp.stack([chosen, t != logp.argmax(axis=-1, keepdims=True)], axis=-2)

    if states.shape[0] <= READOUT_ROWS:
        found = block((states, targets))
    else:
        found = jax.lax.map(block, (states, targets), batch_size=READOUT_ROWS)
    return jnp.moveaxis(found, -2, 0) if greedy else found


def batch_logprobs(
    network: Network,
    start: int,
    params,
    batch: Batch,
    prefix=None,
    states=None,
    rngs=None,
    greedy: bool = False,
) -> jax.Array:
    """float32[U, M], or [2, U, M] where `greedy`: `target_logprobs` of a packed batch.

    See `batch_states`.
    """
    states = batch_states(network, start, params, batch, prefix, states, rngs)
    return target_logprobs(network, params, states, batch.targets, rngs, greedy)


def batch_states(
    network: Network, start: int, params, batch: Batch, prefix=None, states=None, rngs=None
) -> jax.Array:
    """[U, D]: the final state at each read of a packed batch.

    states: float[R, T, D] entering layer `start`, where they are known; else None and start 0.
    """
    tokens = Tokens(batch.position, batch.segment, batch.branch)
    x = network.bottom(params, batch.ids, tokens, rngs) if states is None else states
    memory = _memory(network, params, batch, rngs)
    pools = network.head is not None and network.module.config.reads == "mean"
    reads = None if pools else batch.reads
    x = network.trunk(params, x, tokens, prefix, start, None, rngs, memory, reads)
    return pooled(x, batch, network.module.config.vocab_size) if pools else x


def _memory(network: Network, params, batch: Batch, rngs) -> Memory | None:
    """What a decoder reads of the sources, where the model has an encoder."""
    if not network.module.config.cross:
        return None
    ids, position, segment = batch.source
    return network.remember(params, ids, Tokens(position, segment, 0 * segment), rngs)


def pooled(x: jax.Array, batch: Batch, vocab_size: int) -> jax.Array:
    """The mean state of the text that each read stands in: [R, T, D] -> [U, D].

    That of its own tokens, whose ids are below `vocab_size`; learned ones are not of the text.
    """
    R, T, D = x.shape
    text = batch.segment + T * np.arange(1, R + 1)[:, None]  # a number for each text of the batch
    own = text.reshape(-1) == text.reshape(-1)[batch.reads][:, None]
    own = (own & (batch.ids.reshape(-1) < vocab_size)).astype(x.dtype)
    return own @ x.reshape(-1, D) / own.sum(1, keepdims=True)


_score = Program(batch_logprobs, static=2)
_score_greedy = Program(partial(batch_logprobs, greedy=True), static=2)
_prefill = Program(Network.prefill, static=1)


def prefill(
    network: Network, params, ids: Sequence[int], context: int, meter: Meter
) -> tuple[Prefix, ...] | None:
    """Keys and values of a prompt that many queries share; None for an empty one.

    Raises UserError where it leaves no room in `context` (the model's positions) for a query.
    """
    n = len(ids)
    if n == 0:
        return None
    if n >= context:
        raise UserError(
            f"the demonstrations take {n} tokens, the model's context is {context}; "
            "use fewer or shorter demonstrations"
        )
    padded = np.zeros(-(-n // _PREFIX_MULTIPLE) * _PREFIX_MULTIPLE, np.int32)
    padded[:n] = ids
    return _prefill(meter, network, params, padded, np.arange(len(padded)) < n)


def score(
    network: Network,
    params,
    items: Sequence[Item],
    context: int,
    meter: Meter,
    prefix: tuple[Prefix, ...] | None = None,
    start: int = 0,
    states: np.ndarray | None = None,
    kept: Answers = NOT_KEPT,
    greedy: bool = False,
) -> list[np.ndarray]:
    """Summed log-probability of each choice of each item, float64[C] an item, in the items' order.

    states: float32[total tokens, D] entering layer `start` (see `lmlite.states`), if known. kept:
    where the log-probabilities of each batch are left, and found again. greedy: float64[2, C] an
    item, with how many tokens of each choice greedy decoding passes by.

    Independent of batching, packing and padding to float32 rounding. Raises UserError for a prompt
    longer than `context`.
    """

    program = _score_greedy if greedy else _score

    def logprobs(batch, known):
        def computed():
            return np.asarray(program(meter, network, start, params, batch, prefix, known))

        asked = [*batch._replace(origin=batch.reads), np.asarray(greedy)]
        return kept.of(asked, computed, meter)

    return summed(logprobs, items, context, states)


def summed(
    logprobs: Callable[[Batch, np.ndarray | None], jax.Array],
    items: Sequence[Item],
    context: int,
    states: np.ndarray | None = None,
    tokens: int = BATCH_TOKENS,
) -> list[np.ndarray]:
    """Sums a choice's log-probabilities: float64[..., C] an item, in the items' order.

    logprobs: (packed batch of about `tokens` tokens, states [R, T, D] where known) ->
    float32[..., U, M].
    """
    if not items:
        return []
    length, rows = layout(items, context, tokens)
    sums: dict[int, np.ndarray] = {}
    for batch in pack(items, length, rows, reads=_READS_MULTIPLE):
        known = None if states is None else states[batch.origin]
        found = np.asarray(logprobs(batch, known), np.float64)
        for u, m in zip(*np.nonzero(batch.weights), strict=True):
            i = batch.owner[u]
            if i not in sums:
                choices = 1 + max(c for t in items[i].targets for c, _ in t)
                sums[i] = np.zeros((*found.shape[:-2], choices))
            sums[i][..., batch.choice[u, m]] += found[..., u, m]
    return [sums[i] for i in range(len(items))]
