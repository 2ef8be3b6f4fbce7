"""Attention over a prefix that all rows share, by a Pallas kernel for GPU and TPU.

The kernel gives (out, log-sum-exp) of the prefix part where it has no bias; the own part is
`blockwise`, which also has the formula of the combination (`with_prefix`) and the backward pass.

B batch, T query tokens, P prefix tokens, N heads, K key/value heads, G = N / K query heads a key
head, H head size, M = B * T queries, R = M * G rows a key head.
"""

import functools

import jax
import jax.numpy as jnp

from lmlite.models.attention import blockwise
from lmlite.models.attention.inputs import Inputs


def shared_prefix(x: Inputs) -> jax.Array:
    """[B, T, N, H]; every feature. A TPU holds 2 P H numbers, a key head's prefix, in VMEM."""
    out, lse = blockwise.partial(x.q, x.k, x.v, x.bias, x.query, x.key, x.rule)
    if x.prefix is not None:
        part = prefix_part if x.prefix_bias is None else blockwise.partial
        out = blockwise.with_prefix(x, out, lse, part)
    return out.astype(x.v.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def prefix_part(q, k, v, bias, query, key, rule) -> tuple[jax.Array, jax.Array]:
    """What `blockwise.partial` gives, for one row of queries, without bias or causality.

    q: [1, M, N, H]; k, v: [1, P, K, H] -> float32[1, M, N, H] and float32[1, M, N].
    """
    from lmlite.models.attention import prefix_kernel  # importing Pallas takes a third of a second

    M, N, H = q.shape[1:]
    K = k.shape[2]
    G = N // K
    rows = q.reshape(M, K, G, H).swapaxes(0, 1).reshape(K, M * G, H)
    columns = k[0].swapaxes(0, 1), v[0].swapaxes(0, 1)
    of_rows = (jnp.repeat(a[0], G) for a in (query.position, query.segment))
    results = prefix_kernel.run(rows, *columns, *of_rows, key.position[0], key.segment[0], rule)
    out, lse = (a.reshape(K, M, G, -1).swapaxes(0, 1).reshape(1, M, N, -1) for a in results)
    return out, lse[..., 0]


def _saved(q, k, v, bias, query, key, rule):
    out, lse = prefix_part(q, k, v, bias, query, key, rule)
    return (out, lse), (q, k, v, bias, query, key, out, lse)


prefix_part.defvjp(_saved, blockwise.backward)
