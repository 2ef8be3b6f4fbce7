"""Cutting queries, keys and biases into blocks, the block's index in front, and joining them again.

B batch, T query tokens, S key tokens, N heads, K key/value heads, G = N / K query heads a key head,
H head size; m blocks of t queries, n blocks of s keys.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lmlite.models.tokens import Tokens

# Bytes of the float32 scores of one pair of blocks. On CPU 4 MiB was the fastest of 0.1 .. 36 at
# B = 1, 8 and 32 (it stays in the caches); elsewhere a guess that keeps the number of steps low.
TILE = {"cpu": 4 * 2**20}
_OTHER_TILE = 64 * 2**20
_SHORTEST = 32  # below this the products are too thin, whatever B * N


@dataclasses.dataclass(frozen=True)
class Blocks:
    """size: the most tokens in a block; groups: G."""

    size: int
    groups: int

    @classmethod
    def of(cls, q: jax.Array, k: jax.Array) -> "Blocks":
        """For q [B, T, N, H] and k [B, S, K, H]: the power of two that fills a tile best."""
        B, _, N, _ = q.shape
        area = TILE.get(jax.default_backend(), _OTHER_TILE) / (4 * B * N)
        return cls(max(_SHORTEST, 2 ** round(math.log2(area) / 2)), N // k.shape[2])

    def tokens(self, x: Tokens) -> Tokens:
        """[B, T] -> [m, B, t]; padded with segment 0, which nobody sees."""
        return jax.tree.map(lambda a: self._cut(a, 1), x)

    def queries(self, x: jax.Array) -> jax.Array:
        """[B, T, N, ...] -> [m, B, K, G, t, ...]: heads in front, as the products want them."""
        x = x.reshape(*x.shape[:2], -1, self.groups, *x.shape[3:])
        return jnp.moveaxis(self._cut(x, 1), 2, 4)

    def keys(self, x: jax.Array) -> jax.Array:
        """[B, S, K, H] -> [n, B, K, s, H]."""
        return self._cut(x, 1).swapaxes(2, 3)

    def biases(self, x: jax.Array) -> jax.Array:
        """[1 | B, N, T, S] -> [m, n, 1 | B, K, G, t, s]."""
        x = x.reshape(x.shape[0], -1, self.groups, *x.shape[2:])
        return self._cut(self._cut(x, 4), 4)

    def _cut(self, x: jax.Array, axis: int) -> jax.Array:
        """Blocks of equal length, the last filled up with zeros."""
        size = x.shape[axis]
        count = -(-size // self.size)
        each = -(-size // count)
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, count * each - size)
        x = jnp.pad(x, pad).reshape(*x.shape[:axis], count, each, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)


def join_queries(x: jax.Array, T: int) -> jax.Array:
    """[m, B, K, G, t, ...] -> [B, T, N, ...]."""
    x = _join(jnp.moveaxis(x, 4, 2), 1, T)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])


def join_keys(x: jax.Array, S: int) -> jax.Array:
    """[n, B, K, s, H] -> [B, S, K, H]."""
    return _join(x.swapaxes(2, 3), 1, S)


def join_biases(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[m, n, 1 | B, K, G, t, s] -> `shape`, which is [1 | B, N, T, S]."""
    return _join(_join(x, 4, shape[2]), 4, shape[3]).reshape(shape)


def _join(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Undoes `_cut`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, size, axis=axis)
