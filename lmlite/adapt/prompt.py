"""Prompt tuning: learned embeddings before every input (Lester et al. 2021, arXiv:2104.08691).

P virtual tokens, D width, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.models.tokens import Tokens
from lmlite.models.virtual import Virtual

STARTS = ("random", "vocabulary", "text")


def starting_ids(lm: LM, key: jax.Array, start: str, text: str, length: int) -> jax.Array:
    """int32[P]: distinct ids drawn from the vocabulary, or those of `text` repeated or cut to P."""
    if start == "vocabulary":
        if length > lm.config.vocab_size:
            raise UserError(
                f"length={length} is above the {lm.config.vocab_size} tokens of the vocabulary, of "
                "which start='vocabulary' draws each once; lower it, or take start='random'"
            )
        return jax.random.permutation(key, lm.config.vocab_size)[:length]
    ids = lm.text.encode_batch([text])[0]
    if not ids:
        raise UserError(f"start='text' needs a text with at least one token, got {text!r}")
    return jnp.resize(jnp.asarray(ids, jnp.int32), length)


def run_prompt(network, params, x: jax.Array):
    """The L prefixes of embeddings x [P, D]; causal, so one run serves every row that follows."""
    tokens = Tokens.from_mask(jnp.ones((1, x.shape[0]), bool))
    if "positions" in params:
        x += params["positions"]["embedding"][: x.shape[0]].astype(x.dtype)
    return network.prefixes(params, x[None], tokens)


@dataclasses.dataclass(frozen=True)
class PromptTuning(Method):
    """P embeddings, `embed/prompt` [P, D], take the place of a prompt's; the rest is frozen.

    An encoder reads them in every text, and an encoder-decoder in every source, as PEFT does.
    start: 'vocabulary' (embeddings of tokens drawn at random), 'text' (those of `text`, repeated or
    cut to P tokens, as PEFT does), or 'random' (normal, with the embedding table's deviation).
    """

    foldable = False
    length: int = 20
    start: str = "vocabulary"
    text: str = ""

    def __post_init__(self):
        if self.start not in STARTS:
            raise UserError(f"start={self.start!r} is unknown; known: {STARTS}")

    def rules(self, lm):
        return (("embed/prompt", "prompt"), (".*", tree.FROZEN))

    def virtual(self):
        return Virtual(self.length, self._prefixes, self.prompt)

    def init(self, lm, key, classes):
        table = lm.params["embed"]["embedding"].astype(jnp.float32) * lm.config.embed_scale
        if self.start == "random":
            prompt = jnp.std(table) * jax.random.normal(key, (self.length, lm.config.width))
        else:
            prompt = table[starting_ids(lm, key, self.start, self.text, self.length)]
        return {"embed": {"prompt": prompt}}

    def prompt(self, params):
        """The embeddings [P, D]."""
        return params["embed"]["prompt"]

    def _prefixes(self, network, params):
        return run_prompt(network, params, self.prompt(params))
