"""The flash-attention kernels that ship with jax: splash and flash on TPU, Triton's on GPU.

Their masks go by index: causality and windows by slot, segments by number. That equals ours where
the keys are the queries' own and the layout is at least "packed", which `attention` has checked.

B batch, T tokens, N heads, K key/value heads, H head size.
"""

import jax
import jax.numpy as jnp

from lmlite.models.attention.inputs import Inputs

_LANES = 128  # a TPU tile's width, and the Triton kernel's block: T is padded to a multiple
_BLOCK = 512  # splash: a quarter of the grid steps of its default


def interpreted() -> bool:
    """On CPU the kernels are interpreted: right, slow, for tests."""
    return jax.default_backend() == "cpu"


def splash(x: Inputs) -> jax.Array:
    """[B, T, N, H] by the TPU's splash kernel, which skips blocks that nothing is seen of."""
    from jax.experimental.pallas.ops.tpu import splash_attention as lib

    T, N = x.q.shape[1:3]
    block = min(_BLOCK, T + -T % _LANES)
    q, k, v, segment = _padded(x, block)
    kernel = lib.make_splash_mha(
        lib.MultiHeadMask([_splash_mask(lib, q.shape[1], x.rule)] * N),
        block_sizes=lib.BlockSizes(*[block] * 8),
        attn_logits_soft_cap=x.rule.soft_cap or None,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpreted(),
    )
    heads_first = (a.swapaxes(1, 2) for a in (q, k, v))
    out = jax.vmap(lambda q, k, v, s: kernel(q, k, v, lib.SegmentIds(s, s)))(*heads_first, segment)
    return _real(out.swapaxes(1, 2), x)


def _splash_mask(lib, size: int, rule):
    shape = (size, size)
    if rule.window:
        return lib.LocalMask(shape, (rule.window - 1, 0 if rule.causal else rule.window - 1), 0)
    return lib.CausalMask(shape) if rule.causal else lib.FullMask(shape)


def flash(x: Inputs) -> jax.Array:
    """[B, T, N, H] by the TPU's flash kernel; a bias costs it [B, N, T, T]."""
    from jax.experimental.pallas.ops.tpu import flash_attention as lib

    q, k, v, segment = _padded(x, _LANES)
    k, v = _repeated(x, k, v)
    bias = x.bias
    if bias is not None:
        pad = q.shape[1] - x.q.shape[1]
        bias = jnp.pad(bias.astype(jnp.float32), ((0, 0), (0, 0), (0, pad), (0, pad)))
        bias = jnp.broadcast_to(bias, (q.shape[0], *bias.shape[1:]))
    heads_first = (a.swapaxes(1, 2) for a in (q, k, v))
    out = lib.flash_attention(
        *heads_first, bias, lib.SegmentIds(segment, segment), causal=x.rule.causal
    )
    return _real(out.swapaxes(1, 2), x)


def triton(x: Inputs) -> jax.Array:
    """[B, T, N, H] by the Triton kernel for NVIDIA and AMD GPUs."""
    from jax.experimental.pallas.ops.gpu import attention as lib

    q, k, v, segment = _padded(x, _LANES)
    k, v = _repeated(x, k, v)
    out = lib.mha(q, k, v, segment, causal=x.rule.causal, interpret=interpreted())
    return _real(out, x)


def _padded(x: Inputs, multiple: int) -> tuple[jax.Array, ...]:
    """q, k, v and segment [B, T] with T padded to a multiple, by tokens of segment 0."""

    def pad(a):
        return jnp.pad(a, [(0, 0), (0, -a.shape[1] % multiple)] + [(0, 0)] * (a.ndim - 2))

    return pad(x.q), pad(x.k), pad(x.v), pad(x.query.segment)


def _repeated(x: Inputs, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A copy of each key head for each of its query heads: [B, T, N, H]."""
    groups = x.q.shape[2] // x.k.shape[2]
    return jnp.repeat(k, groups, axis=2), jnp.repeat(v, groups, axis=2)


def _real(out: jax.Array, x: Inputs) -> jax.Array:
    """Without the padding; padding tokens see each other in these kernels, here they see nobody."""
    seen = (x.query.segment > 0)[..., None, None]
    return jnp.where(seen, out[:, : x.q.shape[1]], 0).astype(x.v.dtype)
