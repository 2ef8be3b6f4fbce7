"""What the prompts of a batch begin with alike is read once, and its keys and values are given to
each of them.

B prompts of T tokens at most, R rows of W tokens, D width, S cache slots, L layers, K key/value
heads, H head size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.data.rows import cost, first_fit
from lmlite.decode.prompts import filled, pad
from lmlite.models import trees
from lmlite.models.config import DecoderConfig, ModelConfig
from lmlite.models.decoder import Cache
from lmlite.models.network import Network
from lmlite.models.tokens import Tokens

_PAYS = 0.75  # of the cost of separate rows at most: less is not worth another compiled program


class Shared(NamedTuple):
    """The distinct tokens of a batch of prompts, as trees (`lmlite.models.trees`) in rows.

    ids, position, segment, branch: int32[R, W]. place: int32[B, T], where each prompt's tokens are
    among R * W; past the prompt's end, anywhere.
    """

    ids: jax.Array
    position: jax.Array
    segment: jax.Array
    branch: jax.Array
    place: jax.Array

    def read(self, network: Network, params, length: jax.Array, slots: int):
        """The state [B, D] at each prompt's last token, and a cache of S slots with its prompt.

        length: int32[B], of the prompts.
        """
        B, T = self.place.shape
        last = self.place[jnp.arange(B), length - 1]
        tokens = Tokens(self.position, self.segment, self.branch)
        x, layers = network.read(params, self.ids, tokens, last)
        free = ((0, 0), (0, 0), (0, slots - T), (0, 0))

        def given(read: jax.Array) -> jax.Array:
            """[R, W, K, H] -> [B, K, S, H]."""
            own = read.reshape(-1, *read.shape[2:])[self.place]
            return jnp.pad(own.swapaxes(1, 2), free)

        held = Tokens.from_mask(jnp.arange(slots) < length[:, None])
        held = held._replace(position=held.position + network.ahead(params))
        return x, Cache(jax.tree.map(given, layers), held, jnp.int32(T))


def reading(
    config: ModelConfig, prompts: Sequence[Sequence[int]], size: int
) -> tuple[np.ndarray, np.ndarray, Shared | None]:
    """What `loop.begin` reads of a batch of `size` rows, which are filled up with the last prompt:
    padded ids and lengths (see `pad`), and how to read once what prompts share, if they do.
    """
    ids, length = pad([prompts[i] for i in filled(list(range(len(prompts))), size)])
    return ids, length, _shared(prompts, *ids.shape) if isinstance(config, DecoderConfig) else None


def _shared(prompts: Sequence[Sequence[int]], B: int, T: int) -> Shared | None:
    """How to read the prompts; None where sharing does not pay. The rest of the B rows are the last
    prompt again.

    R * W is less than B * T, so what is held of the tokens has the same bound as without sharing.
    """
    found = trees.groups(prompts, max(trees.TREE_TOKENS, T))
    if len(found) == len(prompts):
        return None
    made = [trees.tree([prompts[i] for i in group]) for group in found]
    sizes = [len(tree.ids) for tree in made]
    least = max(T, _shape(max(sizes)))
    widths = least, _shape(least + 1), 2 * least
    shapes = [(_shape(len(first_fit(sizes, W))), W) for W in widths]
    R, W = min(shapes, key=lambda shape: cost(*shape))
    if cost(R, W) > _PAYS * cost(B, T):
        return None
    grid, place = np.zeros((4, R, W), np.int32), np.zeros((B, T), np.int32)
    for r, row in enumerate(first_fit(sizes, W)):
        at = 0
        for segment, t in enumerate(row, start=1):
            tree, n = made[t], sizes[t]
            segments = np.full(n, segment)
            grid[:, r, at : at + n] = tree.ids, tree.position, segments, tree.branch
            for i, places in zip(found[t], tree.places, strict=True):
                place[i, : len(places)] = r * W + at + places
            at += n
    place[len(prompts) :] = place[len(prompts) - 1]
    return Shared(*grid, place)


def _shape(n: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, ...: few, so that programs are shared."""
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if power >= 4 and n <= power * 3 // 4 else power
