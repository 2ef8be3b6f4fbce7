"""Attention over a token's own row and, where there is one, a prefix that all rows share.

B batch, T query tokens, S key tokens, P prefix tokens, N heads, K key/value heads, H head size.
"""

import jax
import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models.attention.inputs import Inputs, Prefix, Rule
from lmlite.models.attention.support import pick
from lmlite.models.tokens import Tokens

__all__ = ["LAYOUTS", "Prefix", "attention"]

LAYOUTS = ("free", "packed", "padded")


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    query: Tokens,
    key: Tokens,
    *,
    scale: float,
    causal: bool = True,
    window: int = 0,
    soft_cap: float = 0.0,
    bias: jax.Array | None = None,
    prefix: Prefix | None = None,
    layout: str = "free",
    impl: str = "auto",
) -> jax.Array:
    """Softmax attention, float32 inside. q: [B, T, N, H]; k, v: [B, S, K, H] -> [B, T, N, H].

    `query` and `key` hold the attributes of the query [B, T] and key [B, S] tokens, which decide
    who sees whom (`visible`). A query that sees nothing, as padding does, gives zeros and passes no
    gradient. Scores are scale * q k, squashed by `soft_cap` where it is not 0, plus `bias`: float
    [N, T, S] or [1 | B, N, T, S] of the row's own keys, or [.., T, P + S] of the prefix's before
    them. Prefix keys are read un-batched, so their cost in memory traffic does not grow with B.

    layout: what the caller knows of the attributes beyond their shapes. "free": nothing. "packed":
    each segment fills neighbouring slots in the order of its positions, and there are no branches.
    "padded": as packed, and every row is one segment from slot 0, with padding after it. Kernels
    whose masks go by index need the last two, and `query` and `key` to be the same arrays.

    impl: a name in `support.TABLE`, or "auto": cuDNN on a GPU for the layout "padded" and splash on
    a TPU for "packed" too, where they support the call; else "reference" while its scores, 4 B N T
    (P + S) bytes, stay within `support.SCORES_LIMIT` and for T = 1 (a decoding step, whose scores
    are no larger than its keys); else "blockwise".

    Raises UserError where `impl` or `layout` is unknown or `impl` does not support the call.
    """
    if layout not in LAYOUTS:
        raise UserError(f"attention layout {layout!r} is unknown; use one of {LAYOUTS}")
    bias = bias[None] if bias is not None and bias.ndim == 3 else bias
    rule = Rule(causal, window, soft_cap, layout)
    known = None
    if bias is not None and bias.shape[-1] > k.shape[1]:
        known, bias = jnp.split(bias, [bias.shape[-1] - k.shape[1]], axis=-1)
    inputs = Inputs(q * scale, k, v, query, key, rule, bias, prefix, known)
    return pick(impl, inputs)(inputs)
