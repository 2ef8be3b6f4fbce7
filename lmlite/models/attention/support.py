"""Which implementation does what: one table, the refusals, and the choice of "auto"."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models.attention import dot_product, pallas
from lmlite.models.attention.blockwise import blockwise
from lmlite.models.attention.inputs import Inputs
from lmlite.models.attention.reference import reference
from lmlite.models.attention.shared_prefix import shared_prefix

FEATURES = frozenset(
    "causal bidirectional padding segments branches cross window soft_cap bias grouped prefix"
    " float32".split()
)
# Kernels whose masks go by index take the two layouts in which index and attributes agree.
_INDEXED = FEATURES - {"branches", "cross", "prefix"}
_TRITON = _INDEXED - {"window", "soft_cap", "bias"}
# Its bias argument carries the mask; a learned bias there has not been checked on a GPU.
_CUDNN = FEATURES - {"soft_cap", "prefix", "bias", "float32"}


class Implementation(NamedTuple):
    """run: Inputs -> [B, T, N, H]; features it is equal to the reference in; where it runs."""

    run: Callable[[Inputs], jax.Array]
    features: frozenset[str]
    platforms: tuple[str, ...] = ("cpu", "gpu", "tpu")


TABLE = {
    "reference": Implementation(reference, FEATURES),
    "blockwise": Implementation(blockwise, FEATURES),
    "shared_prefix": Implementation(shared_prefix, FEATURES),
    "xla": Implementation(dot_product.xla, FEATURES - {"soft_cap", "prefix"}),
    "cudnn": Implementation(dot_product.cudnn, _CUDNN, ("gpu",)),
    "splash": Implementation(pallas.splash, _INDEXED - {"bias"}, ("tpu", "cpu")),
    "flash": Implementation(pallas.flash, _INDEXED - {"window", "soft_cap"}, ("tpu",)),
    "triton": Implementation(pallas.triton, _TRITON, ("gpu", "cpu")),
}
# Bytes of float32 scores up to which "auto" computes them all at once. On CPU blockwise is ahead
# from 9 MiB on, by up to 14x (the reference then leaves the caches), and behind at 5 MiB with
# gradients; on accelerators the limit is what a model can spare beside its activations.
SCORES_LIMIT = {"cpu": 8 * 2**20}
_OTHER_LIMIT = 256 * 2**20
_TILE = 128  # the shortest T worth a fused kernel, and the widest head every GPU's cuDNN takes


def features(x: Inputs) -> frozenset[str]:
    """What a call needs, as far as it is known before the arrays are.

    The contents of `query` and `key` are not, so the layout speaks for them.
    """
    rule = x.rule
    named = {
        "causal": rule.causal,
        "bidirectional": not rule.causal,
        "padding": True,
        "segments": rule.layout != "padded",
        "branches": rule.layout == "free",
        "cross": not x.self_attention(),
        "window": bool(rule.window),
        "soft_cap": bool(rule.soft_cap),
        "bias": x.bias is not None,
        "grouped": x.q.shape[2] != x.k.shape[2],
        "prefix": x.prefix is not None,
        "float32": x.q.dtype == jnp.float32,
    }
    return frozenset(name for name, needed in named.items() if needed)


def refused(name: str, x: Inputs) -> str:
    """Why implementation `name` is not for this call; "" where it is."""
    platform = jax.default_backend()
    if platform not in TABLE[name].platforms:
        return f"runs on {' or '.join(TABLE[name].platforms)}, not on {platform}"
    missing = features(x) - TABLE[name].features
    return f"does not support {', '.join(sorted(missing))}" if missing else ""


def choose(x: Inputs) -> str:
    """The implementation that "auto" stands for; see `attention`."""
    B, T, N, H = x.q.shape
    platform = jax.default_backend()
    if platform == "tpu" and T >= _TILE and not refused("splash", x):
        return "splash"
    if platform == "gpu" and T >= _TILE and _fits_cudnn(x) and not refused("cudnn", x):
        return "cudnn"
    keys = x.k.shape[1] + (x.prefix.key.shape[0] if x.prefix else 0)
    small = 4 * B * N * T * keys <= SCORES_LIMIT.get(platform, _OTHER_LIMIT)
    return "reference" if small or T == 1 else "blockwise"


def _fits_cudnn(x: Inputs) -> bool:
    """Whether its fused kernels run here, by flags instead of a mask, whatever the version."""
    device, H = jax.local_devices()[0], x.q.shape[-1]
    ampere = "NVIDIA" in device.device_kind and float(device.compute_capability) >= 8
    return ampere and x.rule.layout == "padded" and H % 8 == 0 and H <= _TILE


def pick(impl: str, x: Inputs) -> Callable[[Inputs], jax.Array]:
    """The function that computes a call; raises UserError where `impl` can't or is unknown."""
    if impl == "auto":
        impl = choose(x)
    if impl not in TABLE:
        raise UserError(f"attention impl {impl!r} is unknown; use 'auto' or one of {list(TABLE)}")
    if reason := refused(impl, x):
        raise UserError(f"attention impl {impl!r} {reason}; use 'blockwise'")
    return TABLE[impl].run
