"""P-tuning: a prompt's embeddings written by a small encoder (Liu et al. 2021, arXiv:2103.10385).

P virtual tokens, D width, E width of the encoder.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.adapt.prompt import run_prompt
from lmlite.errors import UserError
from lmlite.models.layers import uniform_fan_in
from lmlite.models.virtual import Virtual
from lmlite.runtime import fold_name


@dataclasses.dataclass(frozen=True)
class PTuning(Method):
    """Embeddings [P, D] -> encoder -> the embeddings of a prompt; all of `embed/encoder` trains.

    encoder: 'lstm' is the paper's, a two-layer bidirectional LSTM and an MLP with one hidden layer;
    'mlp' has two hidden layers (PEFT's default). E = hidden.
    """

    foldable = False
    length: int = 20
    encoder: str = "mlp"
    hidden: int = 256

    def __post_init__(self):
        if self.encoder not in ("mlp", "lstm"):
            raise UserError(f"encoder={self.encoder!r} is unknown; known: mlp, lstm")
        if self.hidden < 1:
            raise UserError(f"hidden={self.hidden} must be at least 1")

    def rules(self, lm):
        return (("embed/encoder/.*", "prompt"), (".*", tree.FROZEN))

    def virtual(self):
        return Virtual(self.length, self._prefixes, self.prompt)

    def init(self, lm, key, classes):
        D, E = lm.config.width, self.hidden
        if self.encoder == "mlp":
            sizes, shapes = (D, E, E, D), {}
        else:
            sizes = 2 * E, 2 * E, D
            directions = [(i, d) for i in (0, 1) for d in ("forward", "backward")]
            shapes = {f"lstm_{i}_{d}": ((2 * E if i else D) + E, 4 * E) for i, d in directions}
        shapes |= {f"mlp_{i}": sizes[i : i + 2] for i in range(len(sizes) - 1)}
        leaves = {
            name: {"kernel": uniform_fan_in(fold_name(key, name), s), "bias": jnp.zeros(s[1])}
            for name, s in shapes.items()
        }
        embedding = jax.random.normal(fold_name(key, "embedding"), (self.length, D))
        return {"embed": {"encoder": {"embedding": embedding, **leaves}}}

    def prompt(self, params):
        """The embeddings [P, D] that the encoder writes."""
        p = params["embed"]["encoder"]
        x = p["embedding"]
        for i in (0, 1) if self.encoder == "lstm" else ():
            after = _lstm(p[f"lstm_{i}_forward"], x)
            before = _lstm(p[f"lstm_{i}_backward"], x[::-1])[::-1]
            x = jnp.concatenate([after, before], axis=-1)
        layers = [p[name] for name in sorted(p) if name.startswith("mlp_")]
        for layer in layers[:-1]:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return x @ layers[-1]["kernel"] + layers[-1]["bias"]

    def kept(self, lm, params, moved):
        """The prompt: the encoder that wrote it is done."""
        flat = tree.flatten(moved).items()
        others = {path: leaf for path, leaf in flat if not path.startswith("embed/encoder/")}
        return {**others, "prompt": self.prompt(params)}

    def _prefixes(self, network, params):
        return run_prompt(network, params, self.prompt(params))


def _lstm(p, x: jax.Array) -> jax.Array:
    """Hidden states [P, E] of an LSTM over x [P, .]; gates in PyTorch's order (i, f, g, o)."""

    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(jnp.concatenate([x, h]) @ p["kernel"] + p["bias"], 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros(p["bias"].shape[0] // 4)
    return jax.lax.scan(step, (zeros, zeros), x)[1]
