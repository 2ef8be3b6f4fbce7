"""A model with random weights of any family, its sizes given in the words of its config.json."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from lmlite.errors import UserError
from lmlite.models import config_json
from lmlite.models.build import build
from lmlite.models.config import EncDecConfig, EncoderConfig, ModelConfig
from lmlite.models.lm import LM
from lmlite.models.tokenizer import Tokenizer
from lmlite.models.tokens import Tokens
from lmlite.models.word_vectors import fill, read
from lmlite.pretrain.objectives import Causal, Masked, Objective, Spans, span_counts
from lmlite.runtime import stream

_SHORTEST = {"causal": 1, "masked": 3, "spans": 3}
_KIND_OF = {EncoderConfig: "masked", EncDecConfig: "spans"}  # every other role is causal


def sentinels_needed(objective: Any, length: int) -> int:
    """How many sentinels the tokenizer of config.objective must have.

    Raises UserError for an unknown objective, and for rates and lengths that leave nothing to do.
    """
    kind, least = objective.kind, _SHORTEST.get(objective.kind)
    if least is None:
        raise UserError(f"objective.kind={kind!r} is unknown; known: {', '.join(_SHORTEST)}")
    if length < least:
        raise UserError(f"length={length} is too short for {kind!r}; it needs at least {least}")
    if kind != "causal" and not 0 < objective.rate < 1:
        raise UserError(f"objective.rate={objective.rate} must lie between 0 and 1, such as 0.15")
    if kind == "spans" and objective.span < 1:
        raise UserError(f"objective.span={objective.span} tokens is too short; 3 is usual")
    return span_counts(length, objective.rate, objective.span)[2] if kind == "spans" else 0


def random_model(config: Any, tokenizer: Tokenizer) -> LM:
    """The model of config.model in config.dtype, drawn by config.seed, for this vocabulary.

    With config.word_vectors, its token table starts from that file. Raises UserError for sizes that
    are no model's, a role that does not fit the objective, a context shorter than config.length.
    """
    settled = _settled(config.model.to_dict(), tokenizer)
    if isinstance(settled, EncoderConfig):
        settled = dataclasses.replace(settled, masked_head=True)
    _check(config, settled)
    module = build(settled, config.dtype)
    ids = jnp.zeros((1, 1), jnp.int32)
    tokens = Tokens.from_mask(jnp.ones((1, 1), bool))
    params = module.init(stream(config.seed, "init"), ids, tokens)["params"]
    if config.word_vectors:
        table = fill(params["embed"]["embedding"], tokenizer, read(config.word_vectors))
        params = params | {"embed": {"embedding": table}}
    return LM(module, params, settled, tokenizer, config.model.model_type)


def build_objective(config: Any, lm: LM) -> Objective:
    """The objective of config.objective on rows of config.length tokens."""
    named, length = config.objective, config.length
    if named.kind == "causal":
        return Causal(length)
    ids = {name: _id(lm.text, name) for name in ("cls_token", "sep_token", "mask_token")}
    if named.kind == "masked":
        special = len(_names(lm.text))
        return Masked(length, named.rate, lm.config.vocab_size, special, *ids.values())
    count = sentinels_needed(named, length)
    sentinels = tuple(lm.text.backend.token_to_id(f"<extra_id_{i}>") for i in range(count))
    start, end = lm.config.start_id, lm.text.eos_id
    return Spans(length, named.rate, named.span, sentinels, start, end)


def end_id(tokenizer: Tokenizer) -> int | None:
    """The token that ends a document in the stream: EOS, or BERT's separator."""
    return tokenizer.eos_id if tokenizer.eos_id is not None else _id(tokenizer, "sep_token")


def _settled(raw: dict, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration: what the config says, with the vocabulary's own numbers."""
    pad, end = tokenizer.pad_id, end_id(tokenizer)
    start = _id(tokenizer, "cls_token")
    ids = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": end if start is None else start,
        "eos_token_id": end,
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
    }
    return config_json.read({key: value for key, value in raw.items() if value is not None} | ids)


def _check(config: Any, settled: ModelConfig) -> None:
    fits, kind = _KIND_OF.get(type(settled), "causal"), config.objective.kind
    if kind != fits:
        raise UserError(
            f"objective.kind={kind!r} does not train a {settled.family} model; use {fits!r}"
        )
    if config.length > settled.max_positions:
        raise UserError(
            f"length={config.length} is longer than the model's context of "
            f"{settled.max_positions}; lower it or enlarge the model's"
        )


def _names(tokenizer: Tokenizer) -> list[str]:
    return [name for name in tokenizer.config if name.endswith("_token")]


def _id(tokenizer: Tokenizer, name: str) -> int | None:
    token = tokenizer.config.get(name)
    return None if token is None else tokenizer.backend.token_to_id(token)
