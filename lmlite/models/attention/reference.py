"""The readable implementation: all scores at once, softmax in float32.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, G = N / K query
heads a key head, H head size.
"""

import jax
import jax.numpy as jnp

from lmlite.models.attention.inputs import HIDDEN, Inputs


def reference(x: Inputs) -> jax.Array:
    """[B, T, N, H]; every feature; memory for the scores [B, N, T, P + S].

    One softmax over prefix and own keys together is the log-sum-exp combination without its second
    pass.
    """
    if x.q.shape[1] != x.k.shape[1] and jax.default_backend() == "cpu":
        x = _widened(x)  # XLA has no kernel for bfloat16 products with a cache in every shape
    B, T, N, H = x.q.shape
    K = x.k.shape[2]
    q = x.q.reshape(B, T, K, N // K, H)
    seen, scores = x.seen(), x.rule.capped(_product("btkgh,bskh->bkgts", q, x.k))
    if x.bias is not None:
        scores += x.bias.reshape(-1, K, N // K, *x.bias.shape[2:])
    if x.prefix is not None:
        known = x.rule.capped(_product("btkgh,pkh->bkgtp", q, x.prefix.key))
        if x.prefix_bias is not None:
            known += x.prefix_bias.reshape(-1, K, N // K, *x.prefix_bias.shape[2:])
        scores = jnp.concatenate([known, scores], axis=-1)
        seen = jnp.concatenate([x.seen_prefix(), seen], axis=-1)
    scores = jnp.where(seen[:, None, None], scores, HIDDEN)
    sees = seen.any(-1)[:, None, None, :, None]  # a row that sees nothing is zero, not a mean
    weights = (jax.nn.softmax(scores, axis=-1) * sees).astype(x.v.dtype)
    P = weights.shape[-1] - x.k.shape[1]
    out = _product("bkgts,bskh->btkgh", weights[..., P:], x.v)
    if x.prefix is not None:
        out += _product("bkgtp,pkh->btkgh", weights[..., :P], x.prefix.value)
    return out.reshape(B, T, N, H).astype(x.v.dtype)


def _widened(x: Inputs) -> Inputs:
    """Queries, keys and values in float32, and with the values the result."""
    prefix = x.prefix
    if prefix is not None:
        wide = (a.astype(jnp.float32) for a in prefix[:2])
        prefix = prefix._replace(**dict(zip(("key", "value"), wide, strict=True)))
    q, k, v = (a.astype(jnp.float32) for a in (x.q, x.k, x.v))
    return x._replace(q=q, k=k, v=v, prefix=prefix)


def _product(equation, a, b):
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
