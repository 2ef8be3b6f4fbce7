"""Linear, norm and MLP: the modules that every family shares.

B batch, T tokens, D width, F hidden.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmlite.models.quantized import Quantized, late

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
_INIT = nn.initializers.normal(0.02)


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Uniform in +-1/sqrt(fan in): PyTorch's default for a linear layer, PEFT's for LoRA's A."""
    limit = shape[0] ** -0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def matmul(
    x: jax.Array, kernel: jax.Array | Quantized, dtype: str, transposed: bool = False
) -> jax.Array:
    """x [..., I] times kernel [I, O], operands in `dtype`, accumulated and returned in float32.

    transposed: the kernel is stored as [O, I]. Differentiable in reverse, any number of times (a
    quantized kernel has no gradient); the cotangent is rounded to `dtype` too, so that both
    backward products are as fast as this one.
    """
    if isinstance(kernel, Quantized):
        assert not transposed, "tables of embeddings are not quantized"
        return _matmul_quantized(x, kernel, dtype)
    return _matmul(x, kernel, dtype, transposed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul_quantized(x: jax.Array, kernel: Quantized, dtype: str) -> jax.Array:
    whole, factor = kernel.factors(dtype)
    y = _matmul(x, whole, dtype, False)
    return y if factor is None else y * factor


def _forward_quantized(x, kernel, dtype):
    return _matmul_quantized(x, kernel, dtype), (kernel, jnp.zeros((), x.dtype))


def _backward_quantized(dtype, saved, g):
    """Decodes again, so that no layer's kernel is held until then: codes that depend on the
    cotangent g cannot be decoded before it (see `lmlite.models.remat`).
    """
    kernel, like = saved
    whole, factor = dataclasses.replace(kernel, codes=late(kernel.codes, g)).factors(dtype)
    if factor is None:
        return _matmul(g, whole, dtype, True).astype(like.dtype), None
    most = jnp.max(factor)  # later, or float16 would lose small gradients
    factor = factor / jnp.where(most > 0, most, 1)
    return (_matmul(g * factor, whole, dtype, True) * most).astype(like.dtype), None


_matmul_quantized.defvjp(_forward_quantized, _backward_quantized)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(x: jax.Array, kernel: jax.Array, dtype: str, transposed: bool) -> jax.Array:
    """On CPU, XLA hands bfloat16 x bfloat16 -> float32 to packed kernels, but computes bfloat16 ->
    bfloat16 by widening both operands: hence the float32 result. It copies what is transposed: the
    kernel is contracted as it is stored, and its gradient transposes the smaller factor.
    """
    dims = ((x.ndim - 1,), (1 if transposed else 0,)), ((), ())
    return jax.lax.dot_general(
        x.astype(dtype), kernel.astype(dtype), dims, preferred_element_type=jnp.float32
    )


def _forward(x, kernel, dtype, transposed):
    return _matmul(x, kernel, dtype, transposed), (x.astype(dtype), kernel, jnp.zeros((), x.dtype))


def _backward(dtype, transposed, saved, g):
    x, kernel, like = saved
    dx = _matmul(g, kernel, dtype, not transposed)
    rows = [a.reshape(-1, a.shape[-1]) for a in ((g, x) if transposed else (x, g))]
    return dx.astype(like.dtype), _outer(*rows, dtype).astype(kernel.dtype)


def _outer(a, b, dtype):
    """a' b: [T, M], [T, N] -> [M, N]."""
    if a.shape[1] <= b.shape[1]:
        return _matmul(a.T, b, dtype, False)
    return _matmul(b.T, a, dtype, False).T


_matmul.defvjp(_forward, _backward)


def parameter(module: nn.Module, name: str, init: Callable, shape: tuple[int, ...]) -> jax.Array:
    """`module.param`, without tracing `init` again for a parameter that is there.

    Flax does so to compare shapes, which took a quarter of the time to trace a model.
    """
    known = module.get_variable("params", name)
    return known if np.shape(known) == shape != () else module.param(name, init, shape)


class Linear(nn.Module):
    """y = x W + b with `kernel` [I, O] and, if `use_bias`, `bias` [O]; float32 out."""

    features: int
    use_bias: bool = False
    dtype: str = "float32"
    kernel_init: Callable = _INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = parameter(self, "kernel", self.kernel_init, (x.shape[-1], self.features))
        y = matmul(x, kernel, self.dtype)
        if self.use_bias:
            y += parameter(self, "bias", nn.initializers.zeros, (self.features,))
        return y


class Norm(nn.Module):
    """RMSNorm ('rms', Zhang & Sennrich 2019) or LayerNorm ('layer') of the last axis, float32."""

    kind: str
    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        start = nn.initializers.constant(1.0 - self.offset)
        scale = self.offset + parameter(self, "scale", start, (x.shape[-1],)).astype(jnp.float32)
        if self.kind == "rms":
            return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale
        return x + parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],))


class MLP(nn.Module):
    """down(act(gate x) * up x) where gated, else down(act(up x)); [B, T, D] -> [B, T, D]."""

    hidden: int
    activation: str
    gated: bool
    use_bias: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        linear = functools.partial(Linear, use_bias=self.use_bias, dtype=self.dtype)
        h = [linear(self.hidden, name="up")(x)]
        if self.gated:
            h.append(linear(self.hidden, name="gate")(x))
        h = _activated(act, *(y.astype(self.dtype) for y in h))
        return linear(x.shape[-1], name="down")(h)


@functools.partial(jax.checkpoint, static_argnums=0)
def _activated(act, up, gate=None):
    """float32. Recomputed in the backward pass: cheaper than to write and read what that needs."""
    up = up.astype(jnp.float32)
    return act(up) if gate is None else act(gate.astype(jnp.float32)) * up
