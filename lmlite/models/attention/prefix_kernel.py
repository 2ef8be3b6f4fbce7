"""The Pallas kernel of `shared_prefix`: a running softmax over the prefix, all in one program.

K key/value heads, R query rows a key head, P prefix tokens, H head size; r rows, p tokens a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lmlite.models.attention.inputs import FLOOR, HIDDEN

_ROWS = 64  # with _KEYS, products of a tensor core's size that fit the registers of one block
_KEYS = 128


def run(q, k, v, q_position, q_segment, k_position, k_segment, rule):
    """q: [K, R, H]; k, v: [K, P, H]; attributes int32[R] and int32[P].

    Returns out float32[K, R, H] and log-sum-exp float32[K, R, 1]. Interpreted on CPU.
    """
    R, H = q.shape[1:]
    width = max(16, pl.next_power_of_2(H))  # Triton's blocks are powers of two
    q = _fill(_fill(q, 2, width), 1, _ROWS)
    k, v = (_fill(_fill(a, 2, width), 1, _KEYS) for a in (k, v))
    of_rows = (_fill(a[:, None], 0, _ROWS) for a in (q_position, q_segment))
    of_keys = (_fill(a[None], 1, _KEYS) for a in (k_position, k_segment))
    out, lse = _call(q, k, v, *of_rows, *of_keys, rule=rule)
    return out[:, :R, :H], lse[:, :R]


def _fill(a: jax.Array, axis: int, multiple: int) -> jax.Array:
    pad = [(0, 0)] * a.ndim
    pad[axis] = (0, -a.shape[axis] % multiple)
    return jnp.pad(a, pad)


def _call(q, k, v, *attributes, rule):
    """One program for each key head and block of rows."""
    K, R, H = q.shape
    P = k.shape[1]
    platform = jax.default_backend()
    block = pl.BlockSpec((None, _ROWS, H), lambda head, i: (head, i, 0))
    lse = pl.BlockSpec((None, _ROWS, 1), lambda head, i: (head, i, 0))
    head = pl.BlockSpec((None, P, H), lambda head, i: (head, 0, 0))
    of_rows = pl.BlockSpec((_ROWS, 1), lambda head, i: (i, 0))
    of_keys = pl.BlockSpec((1, P), lambda head, i: (0, 0))
    return pl.pallas_call(
        functools.partial(_kernel, rule=rule),
        grid=(K, R // _ROWS),
        in_specs=[block, head, head, of_rows, of_rows, of_keys, of_keys],
        out_specs=[block, lse],
        out_shape=[jax.ShapeDtypeStruct((K, R, n), jnp.float32) for n in (H, 1)],
        interpret=platform == "cpu",
        compiler_params=triton.CompilerParams() if platform == "gpu" else None,
        name="shared_prefix",
    )(q, k, v, *attributes)


def _kernel(q, k, v, q_position, q_segment, k_position, k_segment, out, lse, *, rule):
    """One block of rows [r, H] against the whole prefix, _KEYS tokens at a time."""
    rows, position, real = q[...], q_position[...], q_segment[...] > 0

    def step(i, carry):
        acc, total, top = carry
        part = pl.ds(i * _KEYS, _KEYS)
        scores = rule.capped(_dot(rows, k[part, :], ((1,), (1,))))
        seen = real & (k_segment[:, part] > 0)
        if rule.window:
            seen &= jnp.abs(position - k_position[:, part]) < rule.window
        scores = jnp.where(seen, scores, HIDDEN)
        new = jnp.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = jnp.exp(scores - new), jnp.exp(top - new)
        values = v[part, :]
        acc = acc * decay + _dot(weights.astype(values.dtype), values, ((1,), (0,)))
        return acc, total * decay + weights.sum(-1, keepdims=True), new

    start = (
        jnp.zeros(rows.shape, jnp.float32),
        jnp.zeros(position.shape, jnp.float32),
        jnp.full(position.shape, FLOOR, jnp.float32),
    )
    acc, total, top = jax.lax.fori_loop(0, k.shape[0] // _KEYS, step, start)
    total = jnp.where(total > 0, total, 1.0)
    out[...] = acc / total
    lse[...] = top + jnp.log(total)


def _dot(a, b, axes):
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)
