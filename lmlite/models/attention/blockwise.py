"""Memory-efficient attention in plain JAX: no array of size T x S, forward or backward.

The running softmax over blocks of keys is Rabe & Staats (2021), "Self-attention does not need
O(n^2) memory"; the backward pass, which recomputes the weights from the saved log-sum-exp, is
Dao et al. (2022), "FlashAttention". Pairs of blocks that see nothing of each other (the future,
what left the window, other packed segments) are skipped.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, G = N / K query
heads a key head, H head size; m blocks of t queries, n blocks of s keys.
"""

import functools

import jax
import jax.numpy as jnp

from lmlite.models.attention.inputs import Inputs, Rule, any_segment
from lmlite.models.tokens import Tokens, visible

BLOCK = 512  # of both kinds: large enough for full-speed products on CPU, small beside any T
_HIDDEN = -1e30
_FLOOR = -1e20  # a maximum starts here, so that exp(_HIDDEN - maximum) is 0 in every row


def blockwise(x: Inputs) -> jax.Array:
    """[B, T, N, H]; every feature; memory linear in T and S (a bias is itself [N, T, S])."""
    out, lse = partial(x.q, x.k, x.v, x.bias, x.query, x.key, x.rule)
    if x.prefix is not None:
        out = with_prefix(x, out, lse, partial)
    return out.astype(x.v.dtype)


def with_prefix(x: Inputs, own: jax.Array, own_lse: jax.Array, part) -> jax.Array:
    """Attention over prefix and own keys: float32[B, T, N, H], given the own part's (out, lse).

    Softmax over the union of two sets of keys, from the softmax over each:
        lse_i = log sum_j exp(score_ij),  out_i = sum_j exp(score_ij - lse_i) value_ij
        lse = log(exp(lse_1) + exp(lse_2)),  out = exp(lse_1 - lse) out_1 + exp(lse_2 - lse) out_2
    For the prefix, the B rows are one row of B * T queries: its keys are read once, not B times.
    part: computes (out, lse) of that row, as `partial` does.
    """
    row = jax.tree.map(lambda a: a.reshape(1, -1, *a.shape[2:]), (x.q, any_segment(x.query)))
    k, v, key = x.prefix.key[None], x.prefix.value[None], x.prefix.tokens()
    known, lse = part(row[0], k, v, None, row[1], key, x.rule._replace(causal=False))
    share = jax.nn.sigmoid(lse.reshape(own_lse.shape) - own_lse)[..., None]
    return share * known.reshape(own.shape) + (1 - share) * own


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def partial(q, k, v, bias, query: Tokens, key: Tokens, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Attention over one set of keys: out float32[B, T, N, H], log-sum-exp float32[B, T, N].

    A query that sees none of them has out 0 and a log-sum-exp so low that it loses any combination.
    """
    return forward(q, k, v, bias, query, key, rule)[0]


def forward(q, k, v, bias, query, key, rule):
    """`partial` and what its backward pass saves."""
    T, N = q.shape[1:3]
    rows, columns = _rows(q, query, k), _columns(k, v, key)
    biases = _tiles(bias, k)  # [n, m, ...]

    def row(block):
        (q, query), biases = block

        def step(carry, column):
            (k, v, key), bias = column

            def update(acc, total, top):
                scores = _scores(q, k, bias, seen, rule)
                new = jnp.maximum(top, scores.max(-1))
                weights, decay = jnp.exp(scores - new[..., None]), jnp.exp(top - new)
                acc = acc * decay[..., None] + _product("bkgts,bksh->bkgth", weights, v)
                return acc, total * decay + weights.sum(-1), new

            seen = visible(query, key, rule.causal, rule.window)
            return jax.lax.cond(seen.any(), update, lambda *c: c, *carry), None

        zeros = jnp.zeros(q.shape[:-1], jnp.float32)
        start = jnp.zeros(q.shape, jnp.float32), zeros, zeros + _FLOOR
        (acc, total, top), _ = jax.lax.scan(step, start, (columns, biases))
        total = jnp.where(total > 0, total, 1)
        return acc / total[..., None], top + jnp.log(total)

    by_row = jax.tree.map(lambda a: a.swapaxes(0, 1), biases)  # [m, n, ...]
    out, lse = jax.lax.map(row, (rows, by_row))
    result = _from_rows(out, T, N), _from_rows(lse, T, N)
    return result, (q, k, v, bias, query, key, *result)


def backward(rule, saved, cotangents):
    """The pullback of `partial`; ds = p * (dp - sum(dout * out) + dlse)."""
    q, k, v, bias, query, key, out, lse = saved
    d_out, d_lse = cotangents
    T, N = q.shape[1:3]
    offset = d_lse - (d_out * out).sum(-1)
    rows, columns = _rows(q, query, k), _columns(k, v, key)
    saved_rows = tuple(_to_rows(a, k) for a in (d_out.astype(v.dtype), lse, offset))

    def column(d_q, block):
        (k, v, key), biases = block

        def step(carry, row):
            (q, query), (d_out, lse, offset), bias, d_q = row

            def update(d_k, d_v, d_q):
                scores, pull = jax.vjp(lambda *a: _scores(*a, seen, rule), q, k, bias)
                weights = jnp.exp(scores - lse[..., None])
                d_weights = _product("bkgth,bksh->bkgts", d_out, v)
                more_q, more_k, d_bias = pull(weights * (d_weights + offset[..., None]))
                d_v += _product("bkgts,bkgth->bksh", weights, d_out)
                return d_k + more_k, d_v, d_q + more_q, d_bias

            def keep(d_k, d_v, d_q):
                return d_k, d_v, d_q, jax.tree.map(jnp.zeros_like, bias)

            seen = visible(query, key, rule.causal, rule.window)
            d_k, d_v, d_q, d_bias = jax.lax.cond(seen.any(), update, keep, *carry, d_q)
            return (d_k, d_v), (d_q, d_bias)

        start = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
        d_kv, (d_q, d_bias) = jax.lax.scan(step, start, (rows, saved_rows, biases, d_q))
        return d_q, (d_kv, d_bias)

    start = jnp.zeros(rows[0].shape, jnp.float32)
    d_q, ((d_k, d_v), d_bias) = jax.lax.scan(column, start, (columns, _tiles(bias, k)))
    d_q = _from_rows(d_q, T, N).astype(q.dtype)
    d_k, d_v = (_from_columns(d, a).astype(a.dtype) for d, a in ((d_k, k), (d_v, v)))
    return d_q, d_k, d_v, None if bias is None else _from_tiles(d_bias, bias), None, None


partial.defvjp(forward, backward)
