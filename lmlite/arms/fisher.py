"""Squared gradients of single examples: the diagonal of the empirical Fisher information."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.data.item import Item
from lmlite.data.pack import Batch, pack
from lmlite.data.rows import most_reads, row_length
from lmlite.icl.score import batch_logprobs
from lmlite.models.lm import LM
from lmlite.models.network import Network
from lmlite.runtime import Meter, Program


def _add_squares(network: Network, total, train, frozen, batch: Batch):
    def answer(train):
        logprobs = batch_logprobs(network, 0, tree.merge(frozen, train), batch)
        return jnp.sum(logprobs * batch.weights)

    return jax.tree.map(lambda t, g: t + jnp.square(g), total, jax.grad(answer)(train))


_accumulate = Program(_add_squares, static=1, donate=(1,))


def squared_gradients(
    lm: LM, items: Sequence[Item], meter: Meter, paths: Sequence[str]
) -> dict[str, jax.Array]:
    """{path: mean over items of (d log p(answer) / d leaf)^2}, float32 in the leaf's shape.

    One example a pass: the square of a batch's mean gradient is another quantity.
    """
    labels = {path: "fisher" if path in paths else tree.FROZEN for path in tree.flatten(lm.params)}
    train, frozen = tree.split(lm.params, labels)
    wide = {path: leaf.astype(jnp.float32) for path, leaf in tree.flatten(train).items()}
    train = tree.unflatten(wide)  # of a quantized leaf, what it stands for
    total = jax.tree.map(jnp.zeros_like, train)
    length, reads = row_length(items, lm.config.max_positions), most_reads(items, 1)
    for i in range(len(items)):
        for batch in pack(items, length, 1, order=[i], reads=reads):
            total = _accumulate(meter, lm.network, total, train, frozen, batch)
    return {path: leaf / len(items) for path, leaf in tree.flatten(total).items()}
