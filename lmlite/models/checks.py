"""What a config.json cannot be: features that are not supported, and values of a wrong kind."""

import dataclasses
import re
from typing import Any

from lmlite.errors import UserError
from lmlite.models import rope
from lmlite.models.families import Family

_ONLY = {  # switches of the families' own code that ours implements one way
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "use_bidirectional_attention": False,
    "partial_rotary_factor": 1.0,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "normalize_before": False,
    "add_final_layer_norm": False,
    "static_position_embeddings": False,
}
_TEXTS = "SequenceClassification"
_PARTS = re.compile(  # heads that no family has here, and halves of models
    "(TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction|"
    f"DoubleHeadsModel|EncoderModel|{_TEXTS})$"
)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def refuse(raw: dict, family: Family) -> None:
    """Raises UserError for an architecture, a switch or a weight format that is not supported."""
    _refuse_architectures(raw.get("architectures") or (), family)
    for key, value in _ONLY.items():
        if raw.get(key) not in (None, value):
            raise UserError(f"config.json: {key}={raw[key]!r} is not supported, only {value!r}")
    if raw.get("quantization_config"):
        method = raw["quantization_config"].get("quant_method")
        raise UserError(f"config.json: weights quantized by {method!r}; use the unquantized model")


def _refuse_architectures(names, family: Family) -> None:
    """A model with another head has the same model_type, and its tensors may look like ours."""
    known = [name for name in (family.architecture, family.headless) if name]
    if "classifier" in family.modules | family.classified:
        known.append(family.architecture.replace("MaskedLM", _TEXTS))
    for name in names:
        if name not in known and _PARTS.search(name):
            raise UserError(
                f"config.json: architectures says {name!r}, which is not supported; "
                f"use a model of {', '.join(known)}"
            )


def kinds(found: dict[str, Any], family: Family) -> None:
    """Raises UserError where a field's value, which `family.fields` names, is of another kind."""
    types = {field.name: field.type for field in dataclasses.fields(family.config)}
    for field, value in found.items():
        kind = int if types[field] == int | None else types[field]
        allowed = int | float if kind is float else kind
        if value is not None and (
            not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool)
        ):
            key = family.fields[field]
            raise UserError(f"config.json: {key}={value!r} must be {_KINDS[kind]}")


def heads(values: dict[str, Any], family: Family) -> None:
    """Raises UserError where a number of heads does not divide what they share."""
    shared = [("kv_heads", "heads")]
    if "head_size" not in values:
        shared += [("heads", "width"), ("encoder_heads", "width")]
    for part, whole in shared:
        if part in values and (values[part] < 1 or values[whole] % values[part]):
            names = family.fields[part], family.fields[whole]
            raise UserError(
                f"config.json: {names[0]}={values[part]} must divide {names[1]}={values[whole]}"
            )


def rope_rule(rule: dict[str, Any]) -> None:
    """Raises UserError where the type of a rope_scaling is unknown, or lacks one of its numbers."""
    kind = rule["rope_type"]
    if kind not in rope.TYPES:
        known = ", ".join(rope.TYPES)
        raise UserError(f"config.json: rope_scaling type {kind!r} is not supported; known: {known}")
    for key in rope.TYPES[kind]:
        if not isinstance(rule.get(key), int | float):
            raise UserError(
                f"config.json: rope_scaling of type {kind!r} has {key}={rule.get(key)!r}; "
                "give it a number"
            )


def token_ids(value: Any, key: str) -> tuple[int, ...]:
    """The ids in a token id, a list of them or None. key: the file and the name it stands under."""
    ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if any(not isinstance(i, int) or isinstance(i, bool) for i in ids):
        raise UserError(f"{key}={value!r} must be a token id or a list of token ids")
    return tuple(ids)
