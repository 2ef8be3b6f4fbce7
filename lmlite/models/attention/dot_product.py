"""jax.nn.dot_product_attention: by XLA anywhere, by cuDNN on NVIDIA GPUs.

B batch, T query tokens, S key tokens, N heads, H head size.
"""

import jax
import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models.attention.inputs import Inputs


def xla(x: Inputs) -> jax.Array:
    """[B, T, N, H] under the exact mask [B, 1, T, S]; memory for the scores [B, N, T, S]."""
    return _masked(x, "xla")


def cudnn(x: Inputs) -> jax.Array:
    """[B, T, N, H] by cuDNN's fused kernels: no scores in memory.

    Rows of the layout "padded" go by their lengths, causality and window by the kernel's own flags;
    every other layout by a mask [B, 1, T, S] in the dtype of q. Raises UserError for what the
    library or the GPU refuses (head sizes, mostly).
    """
    try:
        return _by_length(x) if _has_lengths(x) else _masked(x, "cudnn")
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"attention impl 'cudnn': {reason}; use 'blockwise'") from error


def _masked(x: Inputs, implementation: str) -> jax.Array:
    seen = x.seen()
    out = jax.nn.dot_product_attention(
        x.q, x.k, x.v, x.bias, seen[:, None], scale=1.0, implementation=implementation
    )
    return jnp.where(seen.any(-1)[..., None, None], out, 0)


def _has_lengths(x: Inputs) -> bool:
    """Whether flags say it all; cuDNN has no window to the right of a query."""
    rule = x.rule
    indexed = rule.causal or rule.window
    return (
        rule.layout == "padded"
        and (x.self_attention() or not indexed)
        and (rule.causal or not rule.window)
    )


def _by_length(x: Inputs) -> jax.Array:
    lengths = [(tokens.segment > 0).sum(-1, dtype=jnp.int32) for tokens in (x.query, x.key)]
    out = jax.nn.dot_product_attention(
        x.q,
        x.k,
        x.v,
        scale=1.0,
        is_causal=x.rule.causal,
        query_seq_lengths=lengths[0],
        key_value_seq_lengths=lengths[1],
        local_window_size=(x.rule.window - 1, 0) if x.rule.window else None,
        implementation="cudnn",
    )
    return jnp.where((x.query.segment > 0)[..., None, None], out, 0)
