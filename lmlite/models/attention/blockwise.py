"""Memory-efficient attention in plain JAX: no array of size T x S, forward or backward.

The running softmax over blocks of keys is Rabe & Staats (2021), "Self-attention does not need
O(n^2) memory"; the backward pass, which recomputes the weights from the saved log-sum-exp, is
Dao et al. (2022), "FlashAttention". Pairs of blocks that see nothing of each other (the future,
what left the window, other packed segments) are skipped.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, G = N / K query
heads a key head, H head size; m blocks of t queries, n blocks of s keys.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmlite.models.attention.blocks import Blocks, join_biases, join_keys, join_queries
from lmlite.models.attention.inputs import FLOOR, HIDDEN, Inputs, Rule, any_segment
from lmlite.models.tokens import Tokens, visible


class _Rows(NamedTuple):
    """A block of queries: query [B, t]; q, d_out [B, K, G, t, H]; lse, offset [B, K, G, t]."""

    query: Tokens
    q: jax.Array
    d_out: jax.Array | None = None
    lse: jax.Array | None = None
    offset: jax.Array | None = None


class _Columns(NamedTuple):
    """A block of keys: key [B, s]; k, v [B, K, s, H]."""

    key: Tokens
    k: jax.Array
    v: jax.Array


def blockwise(x: Inputs) -> jax.Array:
    """[B, T, N, H]; every feature; memory linear in T and S (a bias is itself [N, T, S])."""
    out, lse = partial(x.q, x.k, x.v, x.bias, x.query, x.key, x.rule)
    if x.prefix is not None:
        on_cpu = jax.default_backend() == "cpu"
        out = with_prefix(x, out, lse, each_head if on_cpu else partial)
    return out.astype(x.v.dtype)


def with_prefix(x: Inputs, own: jax.Array, own_lse: jax.Array, part) -> jax.Array:
    """Attention over prefix and own keys: float32[B, T, N, H], given (out, lse) of the own ones.

    Softmax over the union of two sets of keys follows from the softmax over each:
        lse_i = log sum_j exp(score_ij),    out_i = sum_j exp(score_ij - lse_i) value_ij,
        lse = log(exp lse_1 + exp lse_2),   out = exp(lse_1 - lse) out_1 + exp(lse_2 - lse) out_2,
    and exp(lse_1 - lse) = sigmoid(lse_1 - lse_2). For the prefix the B rows are one row of B * T
    queries, so its keys are read once and not B times. part: gives (out, lse) of it, as `partial`.
    """
    fold = functools.partial(jax.tree.map, lambda a: a.reshape(1, -1, *a.shape[2:]))
    key, value = x.prefix.key[None], x.prefix.value[None]
    rule = x.rule._replace(causal=False)
    query, source = fold(any_segment(x.query)), x.prefix.tokens()
    bias = None
    if x.prefix_bias is not None:
        B, T, N = x.q.shape[:3]
        bias = jnp.broadcast_to(x.prefix_bias, (B, N, T, key.shape[1]))
        bias = bias.swapaxes(0, 1).reshape(1, N, B * T, -1)
    known, lse = part(fold(x.q), key, value, bias, query, source, rule)
    share = jax.nn.sigmoid(lse.reshape(own_lse.shape) - own_lse)[..., None]
    return share * known.reshape(own.shape) + (1 - share) * own


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def partial(q, k, v, bias, query: Tokens, key: Tokens, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Attention over one set of keys: out float32[B, T, N, H], log-sum-exp float32[B, T, N].

    A query that sees none of them has out 0 and a log-sum-exp that weighs nothing in a combination.
    """
    return forward(q, k, v, bias, query, key, rule)[0]


def each_head(q, k, v, bias, query, key, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """`partial` of one row, B = 1, a key head after the other.

    XLA's batched products on CPU give whole matrices to threads, three heads to two of them badly;
    a single product is cut evenly (prefixes of 512 tokens: 8.4 in place of 10.9 ms).
    """
    T, N, H = q.shape[1:]
    K = k.shape[2]
    queries = jnp.moveaxis(q.reshape(1, T, K, -1, H), 2, 0)
    keys, values = (jnp.moveaxis(x, 2, 0)[:, :, :, None] for x in (k, v))
    biases = None if bias is None else bias.reshape(1, K, -1, *bias.shape[2:]).swapaxes(0, 1)
    heads = queries, keys, values, biases
    out, lse = jax.lax.map(lambda head: partial(*head, query, key, rule), heads)
    return jnp.moveaxis(out, 0, 2).reshape(q.shape), jnp.moveaxis(lse, 0, 2).reshape(1, T, N)


def forward(q, k, v, bias, query, key, rule):
    """`partial`, and what its pullback saves."""
    blocks = Blocks.of(q, k)
    rows = _Rows(blocks.tokens(query), blocks.queries(q))
    columns = _Columns(blocks.tokens(key), blocks.keys(k), blocks.keys(v))
    tiles = None if bias is None else blocks.biases(bias)
    out = jax.lax.map(lambda block: _attend(*block, columns, rule), (rows, tiles))
    out, lse = (join_queries(x, q.shape[1]) for x in out)
    return (out, lse), (q, k, v, bias, query, key, out, lse)


def _attend(row: _Rows, tiles, columns: _Columns, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """out [B, K, G, t, H] and log-sum-exp [B, K, G, t] of one block of queries over all keys."""

    def step(carry, block):
        column, bias = block
        seen = visible(row.query, column.key, rule.causal, rule.window)

        def update(out, total, top):
            scores = _scores(row.q, column.k, bias, seen, rule)
            new = jnp.maximum(top, scores.max(-1))
            weights, decay = jnp.exp(scores - new[..., None]), jnp.exp(top - new)
            more = _product("bkgts,bksh->bkgth", weights.astype(column.v.dtype), column.v)
            return out * decay[..., None] + more, total * decay + weights.sum(-1), new

        return jax.lax.cond(seen.any(), update, lambda *same: same, *carry), None

    none = jnp.zeros(row.q.shape[:-1], jnp.float32)
    start = jnp.zeros(row.q.shape, jnp.float32), none, none + FLOOR
    (out, total, top), _ = jax.lax.scan(step, start, (columns, tiles))
    total = jnp.where(total > 0, total, 1)
    return out / total[..., None], top + jnp.log(total)


def backward(rule, saved, cotangents):
    """The pullback of `partial`, block by block of keys."""
    q, k, v, bias, query, key, out, lse = saved
    d_out, d_lse = cotangents
    blocks = Blocks.of(q, k)
    offset = d_lse - (d_out * out).sum(-1)
    per_query = (blocks.queries(x) for x in (q, d_out.astype(v.dtype), lse, offset))
    rows = _Rows(blocks.tokens(query), *per_query)
    columns = _Columns(blocks.tokens(key), blocks.keys(k), blocks.keys(v))
    tiles = None if bias is None else blocks.biases(bias).swapaxes(0, 1)

    def step(d_q, block):
        d_k, d_v, d_q, d_bias = _pull(*block, rows, d_q, rule)
        return d_q, (d_k, d_v, d_bias)

    start = jnp.zeros(rows.q.shape, jnp.float32)
    d_q, (d_k, d_v, d_bias) = jax.lax.scan(step, start, (columns, tiles))
    d_q = join_queries(d_q, q.shape[1]).astype(q.dtype)
    d_k, d_v = (join_keys(d, a.shape[1]).astype(a.dtype) for d, a in ((d_k, k), (d_v, v)))
    if bias is not None:
        d_bias = join_biases(d_bias.swapaxes(0, 1), bias.shape)
    return d_q, d_k, d_v, d_bias, None, None


def _pull(column: _Columns, tiles, rows: _Rows, d_q: jax.Array, rule: Rule):
    """Gradients through one block of keys: its own (k, v), d_q with its share added, its biases.

    With p the weights, ds = p * (d_out v + d_lse - sum(d_out * out)).
    """

    def step(carry, block):
        row, bias, d_q = block
        seen = visible(row.query, column.key, rule.causal, rule.window)

        def update(d_k, d_v, d_q):
            scores, pull = jax.vjp(
                lambda q, k, bias: _scores(q, k, bias, seen, rule), row.q, column.k, bias
            )
            weights = jnp.exp(scores - row.lse[..., None])
            d_weights = _product("bkgth,bksh->bkgts", row.d_out, column.v)
            more_q, more_k, d_bias = pull(weights * (d_weights + row.offset[..., None]))
            more_v = _product("bkgts,bkgth->bksh", weights.astype(row.d_out.dtype), row.d_out)
            return (d_k + more_k, d_v + more_v), (d_q + more_q, d_bias)

        def keep(d_k, d_v, d_q):
            return (d_k, d_v), (d_q, jax.tree.map(jnp.zeros_like, bias))

        return jax.lax.cond(seen.any(), update, keep, *carry, d_q)

    start = jnp.zeros(column.k.shape, jnp.float32), jnp.zeros(column.v.shape, jnp.float32)
    (d_k, d_v), (d_q, d_bias) = jax.lax.scan(step, start, (rows, tiles, d_q))
    return d_k, d_v, d_q, d_bias


partial.defvjp(forward, backward)


def _scores(q, k, bias, seen, rule: Rule) -> jax.Array:
    """float32[B, K, G, t, s], HIDDEN where nothing is seen."""
    scores = rule.capped(_product("bkgth,bksh->bkgts", q, k))
    if bias is not None:
        scores += bias
    return jnp.where(seen[:, None, None], scores, HIDDEN)


def _product(equation, a, b):
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
