"""A tiny random Llama with a byte-level tokenizer, and a task it can learn."""

import csv
import dataclasses
import random

import jax
import jax.numpy as jnp
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from lmlite.models import hf
from lmlite.models.build import build
from lmlite.models.config import DecoderConfig, EncoderConfig
from lmlite.models.decoder import Decoder
from lmlite.models.lm import LM
from lmlite.models.tokenizer import Tokenizer
from lmlite.models.tokens import Tokens

CONFIG = DecoderConfig(
    vocab_size=256,
    width=48,
    layers=4,
    heads=6,
    kv_heads=2,
    head_size=8,
    hidden=64,
    max_positions=1024,
    eos_ids=(0,),
)


def byte_tokenizer() -> Tokenizer:
    """One token a byte."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = tokenizers.Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, {})


def tiny_lm(seed: int = 0, scale: float = 6.0, **fields) -> LM:
    """Random weights, large enough that attention and logits are far from uniform."""
    config = dataclasses.replace(CONFIG, **fields)
    module = Decoder(config)
    ids = jnp.zeros((1, 4), jnp.int32)
    tokens = Tokens.from_mask(jnp.ones((1, 4), bool))
    params = module.init(jax.random.key(seed), ids, tokens)["params"]
    params = jax.tree.map(lambda x: x * scale if x.ndim == 2 else x, params)
    return LM(module, params, config, byte_tokenizer(), "tiny")


def tiny_encoder() -> LM:
    """A random BERT on bytes, with weights large enough that nothing is near uniform."""
    config = EncoderConfig(
        vocab_size=256, width=32, layers=2, heads=4, kv_heads=4, head_size=8, hidden=48,
        max_positions=64, types=2, masked_head=True,
    )  # fmt: skip
    module, ids = build(config), jnp.zeros((1, 4), jnp.int32)
    params = module.init(jax.random.key(0), ids, Tokens.from_mask(ids == 0))["params"]
    params = jax.tree.map(lambda x: x * 6 if x.ndim == 2 else x, params)
    return LM(module, params, config, byte_tokenizer(), "tiny")


def write_model(directory, **fields) -> None:
    """The same as a Hugging Face directory."""
    lm = tiny_lm(**fields)
    hf.write(directory, lm.config, lm.params)
    lm.text.save(directory)


def write_task(path, rows: int = 120, labels=("bad", "good")) -> None:
    """A csv of `text` and `label` in which the text ends in the label's first letter."""
    draw = random.Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            label = draw.choice(labels)
            noise = "".join(draw.choice("xyz ") for _ in range(draw.randint(3, 20)))
            writer.writerow([f"{noise} {label[0]}", label])
