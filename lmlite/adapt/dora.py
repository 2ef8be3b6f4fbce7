"""DoRA: direction and length of each column learned apart (Liu et al. 2024, arXiv:2402.09353).

I inputs, O outputs, R rank.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.lora import LoRA
from lmlite.adapt.method import fold, owners


def column_lengths(kernel):
    """Euclidean length of each output's weights: [I, O] -> float32[O]."""
    return jnp.sqrt(jnp.sum(jnp.square(kernel.astype(jnp.float32)), axis=0))


@dataclasses.dataclass(frozen=True)
class DoRA(LoRA):
    """y = (m / |V|) V x with V = W + s B A, |.| a column's length and m [O] starting at |W|.

    Equal to the base at step 0. |V| counts as a constant in the gradient (section 4.3). Dropout
    acts on the input of A alone, so that W x is computed once (PEFT drops from both).
    """

    outermost = False

    def rules(self, lm):
        return ((".*/magnitude", "magnitude"), *super().rules(lm))

    def init(self, lm, key, classes):
        added = tree.flatten(super().init(lm, key, classes))
        base = tree.flatten(lm.params)
        for path in owners(tree.unflatten(added), "lora_a"):
            added[f"{path}/magnitude"] = column_lengths(base[f"{path}/kernel"])
        return tree.unflatten(added)

    def _wrap(self, site, inner, x):
        y = inner(x)
        y += self.low_rank(site, x, y.shape[-1])
        a, b = site.own("lora_a"), site.own("lora_b")
        moved = site.weight("kernel") + self.delta(site.path, a, b)
        lengths = jax.lax.stop_gradient(column_lengths(moved))
        scale = site.param("magnitude", lambda _, shape: jnp.ones(shape), lengths.shape) / lengths
        bias = site.weight("bias")
        return y * scale if bias is None else (y - bias) * scale + bias

    def merge(self, params):
        def into(path, leaves, a, b, magnitude):
            moved = leaves["kernel"] + self.delta(path, a, b)
            return {"kernel": moved * (magnitude / column_lengths(moved))}

        return fold(params, ("lora_a", "lora_b", "magnitude"), into)
