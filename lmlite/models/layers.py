"""Linear, norm and MLP: the modules that every family shares.

B batch, T tokens, D width, F hidden.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def matmul(x: jax.Array, kernel: jax.Array, dtype: str) -> jax.Array:
    """x [..., I] times kernel [I, O], operands in `dtype`, accumulated and returned in float32."""
    if dtype == "float32":  # plain, so that it can be differentiated in every mode
        return jnp.matmul(x.astype(dtype), kernel.astype(dtype))
    return _low_precision(x, kernel, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _low_precision(x, kernel, dtype):
    """Asking for a float32 result is what makes bfloat16 fast on CPU: XLA hands bfloat16 x bfloat16
    -> float32 to its packed kernels, but computes bfloat16 -> bfloat16 by widening both operands.
    The cotangent is rounded to `dtype` too, so that both backward products take the same kernels.
    """
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


def _forward(x, kernel, dtype):
    return _low_precision(x, kernel, dtype), (x.astype(dtype), kernel, jnp.zeros((), x.dtype))


def _backward(dtype, saved, g):
    x, kernel, like = saved
    dx = _low_precision(g, kernel.T, dtype)
    rows, cotangents = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    dkernel = _low_precision(rows.T, cotangents, dtype)
    return dx.astype(like.dtype), dkernel.astype(kernel.dtype)


_low_precision.defvjp(_forward, _backward)


class Linear(nn.Module):
    """y = x W + b with `kernel` [I, O] and, if `use_bias`, `bias` [O]; float32 out."""

    features: int
    use_bias: bool = False
    dtype: str = "float32"
    kernel_init: Callable = _INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = matmul(x, kernel, self.dtype)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,))
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
        scale = self.offset + self.param("scale", start, (x.shape[-1],)).astype(jnp.float32)
        if self.kind == "rms":
            return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps) * scale
        return x + self.param("bias", nn.initializers.zeros, (x.shape[-1],))


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
        h = linear(self.hidden, name="up")(x)
        h = act(linear(self.hidden, name="gate")(x)) * h if self.gated else act(h)
        return linear(x.shape[-1], name="down")(h)
