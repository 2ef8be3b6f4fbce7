"""Attention over a prefix that all rows share, by a Pallas kernel for GPU and TPU.

The kernel gives (out, log-sum-exp) of the prefix part; the own part is `blockwise`, which also has
the formula of the combination (`with_prefix`) and the backward pass.

B batch, T query tokens, P prefix tokens, N heads, K key/value heads, G = N / K query heads a key
head, H head size, R = B * T * G query rows a key head; r rows and p prefix tokens a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from lmlite.models.attention import blockwise
from lmlite.models.attention.inputs import Inputs

_ROWS = 64  # with _KEYS, products of a tensor core's size that fit the registers of one block
_KEYS = 128
_HIDDEN = -1e30
_FLOOR = -1e20  # a maximum starts here, so that exp(_HIDDEN - maximum) is 0 in every row


def shared_prefix(x: Inputs) -> jax.Array:
    """[B, T, N, H]; every feature. A TPU holds 2 P H numbers, a key head's prefix, in VMEM."""
    out, lse = blockwise.partial(x.q, x.k, x.v, x.bias, x.query, x.key, x.rule)
    if x.prefix is not None:
        out = blockwise.with_prefix(x, out, lse, prefix_part)
    return out.astype(x.v.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def prefix_part(q, k, v, bias, query, key, rule) -> tuple[jax.Array, jax.Array]:
    """What `blockwise.partial` gives, for one row of queries, without bias or causality."""
    M, N, H = q.shape[1:]
    K = k.shape[2]
    G = N // K
    rows = _fill(q.reshape(M, K, G, H).swapaxes(0, 1).reshape(K, M * G, H), 1, _ROWS)
    k, v = (_fill(a[0].swapaxes(0, 1), 1, _KEYS) for a in (k, v))
    of_rows = (_fill(jnp.repeat(a[0], G), 0, _ROWS)[:, None] for a in query[:2])
    of_keys = (_fill(a[0], 0, _KEYS)[None] for a in key[:2])
    out, lse = _call(rows, k, v, *of_rows, *of_keys, rule)

    def unfolded(a):
        return a[:, : M * G].reshape(K, M, G, -1).swapaxes(0, 1).reshape(1, M, N, -1)

    return unfolded(out), unfolded(lse)[..., 0]


def _saved(q, k, v, bias, query, key, rule):
    out, lse = prefix_part(q, k, v, bias, query, key, rule)
    return (out, lse), (q, k, v, bias, query, key, out, lse)


prefix_part.defvjp(_saved, blockwise.backward)


def _fill(a: jax.Array, axis: int, multiple: int) -> jax.Array:
    pad = [(0, 0)] * a.ndim
    pad[axis] = (0, -a.shape[axis] % multiple)
    return jnp.pad(a, pad)


def _call(q, k, v, q_position, q_segment, k_position, k_segment, rule):
    """Runs the kernel for each key head and block of rows: [K, R, H] -> [K, R, H], [K, R, 1]."""
    K, R, H = q.shape
    P = k.shape[1]
    block = pl.BlockSpec((None, _ROWS, H), lambda head, i: (head, i, 0))
    head = pl.BlockSpec((None, P, H), lambda head, i: (head, 0, 0))
    of_rows = pl.BlockSpec((_ROWS, 1), lambda head, i: (i, 0))
    of_keys = pl.BlockSpec((1, P), lambda head, i: (0, 0))
    return pl.pallas_call(
        functools.partial(_kernel, rule=rule),
        grid=(K, R // _ROWS),
        in_specs=[block, head, head, of_rows, of_rows, of_keys, of_keys],
        out_specs=[block, pl.BlockSpec((None, _ROWS, 1), lambda head, i: (head, i, 0))],
        out_shape=[
            jax.ShapeDtypeStruct((K, R, H), jnp.float32),
            jax.ShapeDtypeStruct((K, R, 1), jnp.float32),
        ],
        interpret=jax.default_backend() == "cpu",
        name="shared_prefix",
    )(q, k, v, q_position, q_segment, k_position, k_segment)


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
        scores = jnp.where(seen, scores, _HIDDEN)
        new = jnp.maximum(top, scores.max(-1, keepdims=True))
        weights, decay = jnp.exp(scores - new), jnp.exp(top - new)
        values = v[part, :]
        acc = acc * decay + _dot(weights.astype(values.dtype), values, ((1,), (0,)))
        return acc, total * decay + weights.sum(-1, keepdims=True), new

    start = (
        jnp.zeros(rows.shape, jnp.float32),
        jnp.zeros(position.shape, jnp.float32),
        jnp.full(position.shape, _FLOOR, jnp.float32),
    )
    acc, total, top = jax.lax.fori_loop(0, k.shape[0] // _KEYS, step, start)
    total = jnp.where(total > 0, total, 1.0)
    out[...] = acc / total
    lse[...] = top + jnp.log(total)


def _dot(a, b, axes):
    return jax.lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=jnp.float32)
