"""The loss of a pretraining objective: of rows, and of a whole held-out text.

R rows, U targets a row.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmlite.models.network import Network
from lmlite.models.tokens import Tokens
from lmlite.pretrain.corpus import Stream
from lmlite.pretrain.objectives import Inputs, Objective, Rows
from lmlite.runtime import Meter, Program, data_parallel

TRAIN, _HELD_OUT = 0, 1  # streams of random numbers


def token_losses(network: Network, params, rows: Rows) -> jax.Array:
    """float32[R, U]: -log p of each target (Rows.weights are for the caller)."""
    memory = None
    if rows.source is not None:
        memory = network.remember(params, rows.source.ids, _tokens(rows.source))
    tokens = _tokens(rows.inputs)
    x = network.bottom(params, rows.inputs.ids, tokens)
    x = network.trunk(params, x, tokens, memory=memory)
    states = jnp.take_along_axis(x, rows.reads[..., None], axis=1)
    logits = network.readout(params, states)
    return optax.softmax_cross_entropy_with_integer_labels(logits, rows.targets)


def _tokens(inputs: Inputs) -> Tokens:
    return Tokens(inputs.position, inputs.segment, jnp.zeros_like(inputs.segment))


def _sums(network: Network, params, rows: Rows):
    return jnp.sum(token_losses(network, params, rows) * rows.weights), jnp.sum(rows.weights)


_held_out = Program(_sums, static=1)


def held_out_loss(
    network: Network,
    params,
    objective: Objective,
    stream: Stream,
    batch_size: int,
    seed: int,
    meter: Meter,
) -> tuple[float, int]:
    """(mean -log p of a target in nats, number of targets) over the whole of `stream`."""
    whole, rowwise = data_parallel(batch_size)
    params = jax.device_put(params, whole)
    total = count = 0.0
    for rows in _all_rows(objective, stream, batch_size, seed):
        sums = _held_out(meter, network, params, jax.device_put(rows, rowwise))
        total, count = total + float(sums[0]), count + float(sums[1])
    return total / count, int(count)


def _all_rows(objective: Objective, stream: Stream, size: int, seed: int) -> Iterator[Rows]:
    """Every held-out window once; random choices are the same at every reading."""
    starts = objective.starts(len(stream.ids))
    empty = np.full(-len(starts) % size, len(stream.ids))
    for i, chosen in enumerate(np.concatenate([starts, empty]).reshape(-1, size)):
        draw = np.random.default_rng([seed, _HELD_OUT, i])
        yield objective.rows(*stream.windows(chosen, objective.window), draw)
