"""Activation checkpointing: the backward pass recomputes each block from the state entering it.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv:1604.06174). T tokens,
D width.
"""

import dataclasses

import jax

from lmlite.models.lm import Network


@dataclasses.dataclass(frozen=True)
class CheckpointedNetwork(Network):
    """A network whose trunk keeps one [B, T, D] a block for the backward pass; equal otherwise.

    Each block is a run of the whole module from layer i to i + 1: hooks see the modules, paths and
    random streams that they see without it, where a transformed block would show them others.
    """

    def trunk(
        self, params, x, tokens, prefix=None, start=0, stop=None, rngs=None, memory=None
    ) -> jax.Array:
        """See `Network.trunk`."""
        # Learned tokens first, or every block would make them anew; then a network without them.
        prefix = self.joined_prefix(params, prefix)
        plain, placed = Network(self.module, self.hooks), self._placed(tokens)
        for i in range(start, self.module.config.layers if stop is None else stop):

            @jax.checkpoint
            def block(params, x, prefix, memory, i=i):
                return plain.trunk(params, x, placed, prefix, i, i + 1, rngs, memory)

            x = block(params, x, prefix, memory)
        return x


def checkpointed(network: Network) -> CheckpointedNetwork:
    """The same network with activation checkpointing."""
    fields = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
    return CheckpointedNetwork(**fields)
