"""Prefix tuning: learned keys and values in every layer (Li & Liang 2021, arXiv:2101.00190).

P virtual tokens, L layers, K key/value heads, H head size, D = K * H, E width of the encoder.
"""

import dataclasses
from numbers import Integral

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.adapt.prompt import STARTS, starting_ids
from lmlite.errors import UserError
from lmlite.models.attention import Prefix
from lmlite.models.layers import uniform_fan_in
from lmlite.models.network import Network
from lmlite.models.virtual import Virtual
from lmlite.ranges import number
from lmlite.runtime import fold_name

_prefill = jax.jit(Network.prefill, static_argnums=0)


def _prefixes(method, network, params) -> tuple[Prefix, ...]:
    """The method's pairs in the network's dtype, all visible; keys are kept as rotated."""
    pairs, dtype = method.pairs(network.module.config, params), network.module.dtype
    place, seen = jnp.arange(method.length), jnp.ones(method.length, bool)
    return tuple(Prefix(key.astype(dtype), v.astype(dtype), place, seen) for key, v in pairs)


@dataclasses.dataclass(frozen=True)
class PrefixTuning(Method):
    """Trains `layers_i/attn/prefix_{key,value}` [P, K, H], which every token of every input sees.

    Of an encoder-decoder these are the layers of the decoder, its self-attention alone, as in PEFT.
    start: the keys and values of a real prompt, which is 'text' (repeated or cut to P tokens) or
    'vocabulary' (tokens drawn at random); or 'random' (normal with deviation 0.02). With the true
    prompt's tokens the method starts, on a decoder, at exactly what that prompt does in context.
    """

    foldable = False
    length: int = 20
    start: str = "vocabulary"
    text: str = ""

    def __post_init__(self):
        if self.start not in STARTS:
            raise UserError(f"start={self.start!r} is unknown; known: {STARTS}")

    def rules(self, lm):
        return ((".*/attn/prefix_(key|value)", "prefix"), (".*", tree.FROZEN))

    def virtual(self):
        return Virtual(self.length, self._prefixes)

    def init(self, lm, key, classes):
        if self.start == "random":
            c = lm.config
            shape = c.layers, 2, self.length, c.kv_heads, c.head_size
            pairs = 0.02 * jax.random.normal(key, shape)
        else:
            ids = starting_ids(lm, key, self.start, self.text, self.length)
            pairs = [p[:2] for p in _prefill(lm.network, lm.params, ids, jnp.ones(ids.shape, bool))]
        return {
            f"layers_{i}": {"attn": {"prefix_key": k, "prefix_value": v}}
            for i, (k, v) in enumerate(pairs)
        }

    def pairs(self, config, params):
        """The L keys and values, each [P, K, H]."""
        layers = [params[f"layers_{i}"]["attn"] for i in range(config.layers)]
        return [(p["prefix_key"], p["prefix_value"]) for p in layers]

    def _prefixes(self, network, params):
        return _prefixes(self, network, params)


@dataclasses.dataclass(frozen=True)
class EncodedPrefix(Method):
    """Prefix tuning through an MLP: embeddings [P, D] -> tanh, width E -> all layers' keys, values.

    The reparametrisation of section 4.3, in PEFT's form. Everything under `embed/prefix` trains.
    """

    foldable = False
    length: int = 20
    hidden: int = 512

    def __post_init__(self):
        number("hidden", self.hidden, 1, kind=Integral)

    def rules(self, lm):
        return (("embed/prefix/.*", "prefix"), (".*", tree.FROZEN))

    def virtual(self):
        return Virtual(self.length, self._prefixes)

    def init(self, lm, key, classes):
        c, E = lm.config, self.hidden
        D = c.kv_heads * c.head_size
        out = c.layers * 2 * D
        shapes = {"embedding": (self.length, D), "kernel_0": (D, E), "kernel_1": (E, out)}
        leaves = {name: uniform_fan_in(fold_name(key, name), s) for name, s in shapes.items()}
        leaves["embedding"] = jax.random.normal(fold_name(key, "embedding"), shapes["embedding"])
        return {"embed": {"prefix": {**leaves, "bias_0": jnp.zeros(E), "bias_1": jnp.zeros(out)}}}

    def pairs(self, config, params):
        """The L keys and values that the encoder writes, each [P, K, H]."""
        c, p = config, params["embed"]["prefix"]
        h = jnp.tanh(p["embedding"] @ p["kernel_0"] + p["bias_0"]) @ p["kernel_1"] + p["bias_1"]
        pairs = h.reshape(-1, c.layers, 2, c.kv_heads, c.head_size)
        return [(pairs[:, i, 0], pairs[:, i, 1]) for i in range(c.layers)]

    def kept(self, lm, params, moved):
        """The pairs: the encoder that wrote them is done."""
        flat = tree.flatten(moved).items()
        others = {path: leaf for path, leaf in flat if not path.startswith("embed/prefix/")}
        return {**others, "pairs": self.pairs(lm.config, params)}

    def _prefixes(self, network, params):
        return _prefixes(self, network, params)
