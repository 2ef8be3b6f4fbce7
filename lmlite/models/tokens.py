"""What attention needs to know of each token: where it stands and whom it may see.

B batch rows, T tokens, S source tokens. One row may hold several examples (packing) and one example
several branches (the answer choices after one query, or a whole tree of texts that begin alike), so
visibility is decided by three numbers a token instead of by its place in the row. Padding, caches,
packed rows and answer choices are then one mask, and causality does not depend on the order of
storage.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Tokens(NamedTuple):
    """Attributes of tokens, each int32[B, T].

    position: index within the token's own sequence (what rotary embeddings read).
    segment: which sequence of the row it belongs to; 0 is padding and is seen by nobody.
    branch: 0 for the trunk; a token of branch c > 0 is seen by branch c alone. In a tree, branches
    are numbered parents first, and `subtree` adds how many of the next numbers see it as well.
    """

    position: jax.Array
    segment: jax.Array
    branch: jax.Array

    @classmethod
    def from_mask(cls, mask: jax.Array) -> "Tokens":
        """One sequence a row; mask: bool[B, T], true where a token is (padding on any side)."""
        segment = mask.astype(jnp.int32)
        position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
        return cls(position, segment, jnp.zeros_like(segment))


_NUMBERS = 16  # bits of a branch's number; above them stands how many follow that see it


def subtree(number, below):
    """What `Tokens.branch` is for branch `number` > 0, which the next `below` branches go on from.

    Integers or arrays of them; the number fits 16 bits, `below` 15.
    """
    return number + below * 2**_NUMBERS


def visible(query: Tokens, key: Tokens, causal: bool, window: int) -> jax.Array:
    """bool[B, T, S]: whether each query token [B, T] may attend to each key token [B, S].

    A window of w > 0 lets a token see itself and the w - 1 tokens before it (Mistral's rule).
    """
    pair = [(q[:, :, None], k[:, None, :]) for q, k in zip(query, key, strict=True)]
    (q_pos, k_pos), (q_seg, k_seg), (q_branch, k_branch) = pair
    q_number, number = q_branch % 2**_NUMBERS, k_branch % 2**_NUMBERS
    below = (number <= q_number) & (q_number <= number + k_branch // 2**_NUMBERS)
    seen = (q_seg == k_seg) & (k_seg > 0) & ((k_branch == 0) | below)
    if causal:
        seen &= k_pos <= q_pos
    if window:
        seen &= q_pos - k_pos < window
        seen &= k_pos - q_pos < window
    return seen
