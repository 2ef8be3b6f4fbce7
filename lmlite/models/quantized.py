"""Weights in 8 or 4 bits: a pytree that stands in the place of a linear layer's kernel.

I inputs, O outputs, G groups of inputs that share a scale.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import tree

FORMATS = ("int8", "nf4")
_KERNELS = re.compile(r"(encoder/)?layers_\d+/.*/kernel")
_GROUP = 64  # inputs a scale, as in QLoRA
# The 16 values of NF4, quantiles of a normal distribution on [-1, 1]: Dettmers et al. 2023,
# arXiv:2305.14314, appendix E.
_NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip


def late(codes: jax.Array, g: jax.Array) -> jax.Array:
    """The codes, but not before g is known."""
    return _late(codes, jax.lax.stop_gradient(g))


@jax.custom_batching.custom_vmap
def _late(codes, g):
    return codes + (0.0 * g.sum()).astype(codes.dtype)


@_late.def_vmap
def _late_for_all(axis_size, batched, codes, g):
    """Arms that share a kernel decode it once for all."""
    return _late(codes, g), batched[0]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("codes", "scale"),
    meta_fields=("format", "inputs", "dtype"),
)
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A kernel [I, O] as integers and scales; an array of `dtype` to whoever computes with it.

    int8: codes int8[I, O], scale float32[1, O]; the largest of an output's weights is 127.
    nf4: codes uint8[ceil(I / 2), O], two inputs a byte, the first in the high half; scale
    float32[G, O], the largest of 64 inputs. dtype: of the weights before.
    """

    codes: jax.Array
    scale: jax.Array
    format: str
    inputs: int
    dtype: str

    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """(I, O)."""
        return self.inputs, self.codes.shape[-1]

    def factors(self, dtype: str) -> tuple[jax.Array, jax.Array | None]:
        """A kernel [I, O] of `dtype`, and a factor float32[O] of its outputs or None.

        Eight bits are exact in every floating dtype, so their scale can wait for the sum.
        """
        if self.format == "int8":
            return self.codes.astype(dtype), self.scale[0]
        return self.astype(dtype), None

    def astype(self, dtype) -> jax.Array:
        """[I, O] in `dtype`."""
        if self.format == "int8":
            return (self.codes * self.scale).astype(dtype)
        halves = jnp.stack([self.codes >> 4, self.codes & 15], axis=1)
        values = jnp.asarray(_NF4)[halves.reshape(-1, self.shape[1])]
        groups, outputs = self.scale.shape
        whole = jnp.pad(values, ((0, groups * _GROUP - len(values)), (0, 0)))
        whole = whole.reshape(groups, _GROUP, outputs) * self.scale[:, None]
        return whole.reshape(-1, outputs)[: self.inputs].astype(dtype)

    def __jax_array__(self) -> jax.Array:
        return self.astype(self.dtype)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.astype(self.dtype), dtype)


def encode(kernel: jax.Array, format: str) -> Quantized:
    """Rounds a kernel [I, O] to the nearest values of `format`."""
    w = kernel.astype(jnp.float32)
    codes, scale = _int8(w) if format == "int8" else _nf4(w)
    return Quantized(codes, scale, format, len(w), str(kernel.dtype))


@jax.jit
def _int8(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    scale = jnp.max(jnp.abs(w), axis=0, keepdims=True) / 127
    return jnp.round(w / jnp.where(scale > 0, scale, 1)).astype(jnp.int8), scale


@jax.jit
def _nf4(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs, outputs = w.shape
    groups = jnp.pad(w, ((0, -inputs % _GROUP), (0, 0))).reshape(-1, _GROUP, outputs)
    scale = jnp.max(jnp.abs(groups), axis=1)
    normal = groups / jnp.where(scale > 0, scale, 1)[:, None]
    middles = (_NF4[1:] + _NF4[:-1]) / 2
    codes = jnp.searchsorted(middles, normal, method="compare_all").astype(jnp.uint8)
    codes = codes.reshape(-1, outputs)[: inputs + inputs % 2]
    return codes[::2] << 4 | codes[1::2], scale


def held(path: str, leaf: jax.Array, format: str) -> jax.Array | Quantized:
    """The parameter at `path` as a model holds it: the kernels of layers in `format`, '' for none.

    Embeddings, norms, biases and heads stay as they are, as in QLoRA.
    """
    return encode(leaf, format) if format and _KERNELS.fullmatch(path) else leaf


def decoded(params: dict) -> dict:
    """The parameters with what quantized kernels stand for in their place, in their dtype."""
    flat = tree.flatten(params)
    own = {p: jnp.asarray(leaf) for p, leaf in flat.items() if isinstance(leaf, Quantized)}
    return tree.merge(params, tree.unflatten(own))


def is_quantized(params: dict) -> bool:
    """Whether any kernel is."""
    return any(isinstance(leaf, Quantized) for leaf in tree.flatten(params).values())
