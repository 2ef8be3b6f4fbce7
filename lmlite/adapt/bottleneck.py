"""Bottleneck adapters: a small MLP after, or beside, parts of a frozen block.

I inputs, O outputs, R width of the bottleneck.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.adapt.method import Method
from lmlite.errors import UserError
from lmlite.models.layers import ACTIVATIONS, MLP, Linear, matmul, uniform_fan_in


@dataclasses.dataclass(frozen=True)
class Adapter(Method):
    """y = z + up act(down z + c) + e, z the output of a target layer, before its residual sum.

    The default targets are those of Houlsby et al. 2019 (arXiv:1902.00751), after attention and
    after the MLP; `layers_.*/mlp/down` alone is Pfeiffer et al. 2020 (arXiv:2005.00247).
    down [I, R] is uniform; up [R, O], c and e start at zero: equal to the base at step 0.
    """

    foldable = False
    kind: ClassVar[type[nn.Module]] = Linear
    targets: str = r"(encoder/)?layers_\d+/((attn|cross)/o|mlp/down)"
    width: int = 32
    activation: str = "gelu"

    def __post_init__(self):
        if self.width < 1:
            raise UserError(f"width={self.width} is below 1")
        if self.activation not in ACTIVATIONS:
            raise UserError(f"activation {self.activation!r} is unknown; known: {[*ACTIVATIONS]}")

    def rules(self, lm):
        return ((".*/adapter_(down|up)(_bias)?", "adapter"), (".*", tree.FROZEN))

    def hooks(self):
        return (Hook(self.targets, self._wrap, self.kind),)

    def form(self):
        """The same bottleneck at another width (every activation here is 0 at 0)."""
        return dataclasses.replace(self, width=1)

    def stacked(self, methods, paths):
        """The widest."""
        width = max(method.width for method in methods)
        return dataclasses.replace(self, width=width), [{} for _ in methods]

    def bottleneck(self, site, x, features: int):
        """up act(down x + c) + e: [..., I] -> float32[..., O]."""
        zeros = nn.initializers.zeros
        down = site.param("adapter_down", uniform_fan_in, (x.shape[-1], self.width))
        up = site.param("adapter_up", zeros, (self.width, features))
        h = matmul(x, down, site.dtype) + site.param("adapter_down_bias", zeros, (self.width,))
        h = matmul(ACTIVATIONS[self.activation](h), up, site.dtype)
        return h + site.param("adapter_up_bias", zeros, (features,))

    def _wrap(self, site, inner, x):
        z = inner(x)
        return z + self.bottleneck(site, z, z.shape[-1])


@dataclasses.dataclass(frozen=True)
class ParallelAdapter(Adapter):
    """y = mlp(x) + scale * (up relu(down x + c) + e): He et al. 2021 (arXiv:2110.04366).

    x is what the MLP reads (normalised, where the block normalises first).
    """

    kind = MLP
    targets: str = r"(encoder/)?layers_\d+/mlp"
    activation: str = "relu"
    scale: float = 4.0

    def _wrap(self, site, inner, x):
        y = inner(x)
        return y + self.scale * self.bottleneck(site, x, y.shape[-1])
