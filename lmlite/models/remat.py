"""Activation checkpointing: the backward pass recomputes each block from the state entering it.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). B rows,
T tokens, D width.
"""

import dataclasses
import functools

import jax

from lmlite.models.blocks import at
from lmlite.models.network import Network


@dataclasses.dataclass(frozen=True)
class CheckpointedNetwork(Network):
    """A network whose trunk keeps one [B, T, D] a block for the backward pass; equal otherwise.

    Each block is a run of the whole module from layer i to i + 1: hooks see the modules, paths and
    random streams that they see without it, where a transformed block would show them others.
    """

    def trunk(
        self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None, reads=None
    ) -> jax.Array:
        """See `Network.trunk`."""
        # Learned tokens first, or every block would make them anew; then a network without them.
        prefix = self.joined_prefix(params, prefix)
        plain, placed = Network(self.module, self.hooks), self._placed(params, tokens)
        last = (self.module.config.layers if stop is None else stop) - 1
        for i in range(start, last + 1):
            x = _block(
                plain, i, params, x, (placed, prefix, rngs, memory, reads if i == last else None)
            )
        return at(x, reads) if reads is not None and start > last else x


def checkpointed(network: Network) -> CheckpointedNetwork:
    """The same network with activation checkpointing."""
    fields = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
    return CheckpointedNetwork(**fields)


def _run(network: Network, layer: int, params, x, rest) -> jax.Array:
    tokens, prefix, rngs, memory, reads = rest
    return network.trunk(params, x, tokens, prefix, layer, layer + 1, rngs, memory, reads)


_block = functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))(_run)


def _forward(network, layer, *args):
    return _run(network, layer, *args), args


def _backward(network, layer, args, g):
    """`jax.checkpoint` keeps the recomputation late by a barrier that XLA drops on CPU, where the
    memory then stays what it was. A state that depends on the cotangent g cannot come before it.
    """
    params, x, rest = args
    _, pull = jax.vjp(functools.partial(_run, network, layer), params, x + 0.0 * g.sum(), rest)
    return pull(g)


_block.defvjp(_forward, _backward)
