"""IA3: learned rescaling of keys, values and MLP states (Liu et al. 2022, arXiv:2205.05638).

I inputs, O outputs.
"""

import dataclasses

import flax.linen as nn

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.adapt.method import Method, fold


@dataclasses.dataclass(frozen=True)
class IA3(Method):
    """y = l * (W x + b), l [O], and y = W (l * x) + b, l [I]; l starts at one: equal to the base.

    outputs, inputs: regexes over paths of linear layers whose outputs or inputs are
    rescaled; an empty one rescales none.
    """

    outputs: str = r"(encoder/)?layers_\d+/(attn|cross)/(k|v)"
    inputs: str = r"(encoder/)?layers_\d+/mlp/down"

    def rules(self, lm):
        return ((".*/ia3_(out|in)", "adapter"), (".*", tree.FROZEN))

    def hooks(self):
        both = (self.outputs, self._scale_output), (self.inputs, self._scale_input)
        return tuple(Hook(pattern, wrap) for pattern, wrap in both if pattern)

    def _scale_output(self, site, inner, x):
        y = inner(x)
        return y * site.param("ia3_out", nn.initializers.ones, y.shape[-1:])

    def _scale_input(self, site, inner, x):
        return inner(x * site.param("ia3_in", nn.initializers.ones, x.shape[-1:]))

    def merge(self, params):
        def out(path, leaves, scale):
            return {name: leaf * scale for name, leaf in leaves.items()}

        def into(path, leaves, scale):
            return {"kernel": leaves["kernel"] * scale[:, None]}

        return fold(fold(params, ("ia3_out",), out), ("ia3_in",), into)
