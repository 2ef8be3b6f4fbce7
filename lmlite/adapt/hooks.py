"""The only place where a method touches a module: Linen interceptors over module paths."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models.layers import Linear, matmul, parameter

Make = Callable[[str, Callable, tuple[int, ...]], None]


def slotted(name: str, slot: int) -> str:
    """The name under which the leaf `name` of the method in `slot` stands in the tree."""
    return f"{name}.{slot}" if slot else name


def check_regex(field: str, pattern: str) -> None:
    """Raises UserError for a text that is no regex."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f"{field}: {pattern!r} is no regex: {error}") from error


@dataclasses.dataclass(frozen=True)
class Site:
    """The module that a hook wraps, as far as a method may know it.

    The leaves of the methods that share a model are told apart by their slots: 'lora_a',
    'lora_a.1', ... A method calls them by their plain names.
    """

    module: nn.Module
    seen: Make | None = None
    slot: int = 0

    @property
    def path(self) -> str:
        """'layers_0/attn/q'."""
        return "/".join(self.module.path)

    @property
    def dtype(self) -> str:
        """The dtype of the module's matrix products."""
        return self.module.dtype

    def param(self, name: str, init: Callable, shape: tuple[int, ...]) -> jax.Array:
        """A parameter beside the module's own, float32; init: (key, shape) -> array."""
        if self.seen is not None:
            self.seen(f"{self.path}/{name}", init, shape)
        return parameter(self.module, slotted(name, self.slot), init, shape)

    def weight(self, name: str) -> jax.Array | None:
        """A parameter of the module's own; None where it has none (and before its first call)."""
        return self.module.get_variable("params", name)

    def own(self, name: str) -> jax.Array | None:
        """A leaf that the method added to the module; None where it added none."""
        return self.weight(slotted(name, self.slot))

    def shared(self, group: str, name: str) -> jax.Array | None:
        """The method's leaf `name` under `group` at the root of the tree, for all modules."""
        leaves = self.module.scope.root.get_variable("params", group) or {}
        return leaves.get(slotted(name, self.slot))

    def linear(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The linear layer with another kernel."""
        y, bias = matmul(x, kernel, self.dtype), self.weight("bias")
        return y if bias is None else y + bias

    def dropout(self, x: jax.Array, rate: float) -> jax.Array:
        """Inverted dropout, active only where the caller passes a 'dropout' random stream."""
        if rate == 0.0 or not self.module.has_rng("dropout"):
            return x
        keep = jax.random.bernoulli(self.module.make_rng("dropout"), 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), 0.0)


@dataclasses.dataclass(frozen=True)
class Hook:
    """Wraps the `__call__` of every `kind` of module whose path `pattern` fully matches.

    wrap(site, inner, *args, **kwargs) replaces the call; `inner` is the call it replaces. A hook is
    hashable data (`wrap` is a bound method of a frozen dataclass): it can key a compiled program.
    seen: told of every parameter that is asked for. slot: of the method among those attached to the
    model. Calling raises UserError where the pattern matches a module of another kind.
    """

    pattern: str
    wrap: Callable[..., Any]
    kind: type[nn.Module] = Linear
    seen: Make | None = None
    slot: int = 0

    def __post_init__(self):
        check_regex("targets", self.pattern)

    def __call__(self, inner, args, kwargs, context):
        site = Site(context.module, self.seen, self.slot)
        if context.method_name == "__call__" and re.fullmatch(self.pattern, site.path):
            if not isinstance(site.module, self.kind):
                found, wanted = type(site.module).__name__, self.kind.__name__
                raise UserError(
                    f"targets {self.pattern!r} match {site.path}, which is {found}, not {wanted}; "
                    "narrow the regex"
                )
            return self.wrap(site, inner, *args, **kwargs)
        return inner(*args, **kwargs)
