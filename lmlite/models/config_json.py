"""config.json <-> configuration, by the words that `families` lists for each family."""

import dataclasses
import math

from lmlite.errors import UserError
from lmlite.models import checks
from lmlite.models.config import ModelConfig, StackConfig
from lmlite.models.families import FAMILIES, Family

_ACTIVATIONS = {  # the first name of each is the one written
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "gelu_new": "gelu_tanh",
    "swish": "silu",
}
_OF_ALL = (  # also of a half
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
)


def read(raw: dict) -> ModelConfig:
    """The configuration that a parsed config.json describes; `presence` is for the files to tell.

    Raises UserError for an unknown model_type, a missing size, a value of a wrong kind or a feature
    that is not supported.
    """
    if raw.get("model_type") == "gemma3":  # image and text; its text half is a model of its own
        whole = {name: raw[name] for name in _OF_ALL if raw.get(name) is not None}
        raw = raw.get("text_config", {}) | whole | {"model_type": "gemma3_text"}
    name = raw.get("model_type")
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(f"config.json: model_type {name!r} is not known; known: {known}")
    family = FAMILIES[name]
    checks.refuse(raw, family)
    try:
        return family.config(family=name, **_fields(family.defaults | raw, family))
    except KeyError as e:
        raise UserError(f"config.json: {e.args[0]!r} is missing; a {name} model needs it") from e


def write(config: ModelConfig) -> dict:
    """The config.json of `config`. Raises UserError for a value that its family has no word for."""
    family = FAMILIES[config.family]
    raw = {key: getattr(config, field) for field, key in family.fields.items()}
    whole = getattr(config, "masked_head", True)
    architecture = family.architecture if whole else family.headless
    if getattr(config, "classified", False):
        architecture = family.architecture.replace("MaskedLM", "SequenceClassification")
    raw |= {"architectures": [architecture], "model_type": config.family}
    eos = list(config.eos_ids)
    raw["eos_token_id"] = eos[0] if len(eos) == 1 else eos or None
    if "activation" in family.fields:
        names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
        raw[family.fields["activation"]] = names[config.activation]
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if key in raw:
            raw[key] = raw[key] or None  # 0 would be taken for a cap
    if "query_pre_attn_scalar" in family.defaults:
        scalar = round(config.query_scale**-2, 6) if config.query_scale else config.head_size
        raw["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
    if getattr(config, "position", "") == "rope":
        raw |= _write_rope(config) | _write_window(config, family)
    raw |= family.words(config)
    told, asked = dataclasses.asdict(read(raw)), dataclasses.asdict(config)
    for present in family.presence.values():
        told |= {field: asked[field] for field in present}
    lost = ", ".join(f"{key}={value!r}" for key, value in asked.items() if told[key] != value)
    if lost:
        raise UserError(f"a {config.family} config.json cannot express {lost}")
    return raw


def _fields(raw: dict, family: Family) -> dict:
    found = {field: raw[key] for field, key in family.fields.items()}
    checks.kinds(found, family)
    values = {field: value for field, value in found.items() if value is not None}
    values |= family.derive(raw)
    values["eos_ids"] = checks.token_ids(raw["eos_token_id"], "config.json: eos_token_id")
    if issubclass(family.config, StackConfig):
        checks.heads(values, family)
        values |= _stack(raw, values)
    if "rope_theta" in raw:
        values |= _read_rope(raw) | _read_window(raw, family)
    return values | family.fixed


def _stack(raw: dict, values: dict) -> dict:
    """What the sizes of a stack imply, its activation, and the scales of Gemma."""
    implied = {
        "kv_heads": values["heads"],
        "head_size": values["width"] // values["heads"],
        "hidden": 4 * values["width"],
    }
    values = implied | values
    if values["activation"] not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UserError(f"config.json: activation {values['activation']!r}; known: {known}")
    values["activation"] = _ACTIVATIONS[values["activation"]]
    if "query_pre_attn_scalar" in raw:  # Gemma, which scales its embedding too
        scalar = raw["query_pre_attn_scalar"]
        values["query_scale"] = 0.0 if scalar == values["head_size"] else scalar**-0.5
        values["embed_scale"] = math.sqrt(values["width"])
    return values


def _read_rope(raw: dict) -> dict:
    """`rope_theta` and `rope_scaling`, or `rope_parameters` (newer), a layer type each or one."""
    rules = raw.get("rope_parameters") or {}
    rule = dict(raw.get("rope_scaling") or rules.get("full_attention") or rules)
    local = rules.get("sliding_attention") or {}
    base = rule.pop("rope_theta", raw["rope_theta"])
    kind = rule["rope_type"] = rule.pop("type", None) or rule.get("rope_type", "default")
    if kind in ("llama3", "yarn"):
        rule.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    checks.rope_rule(rule)
    return {
        "rope_base": float(base),
        "rope_scaling": () if kind == "default" else tuple(sorted(rule.items())),
        "local_rope_base": float(local.get("rope_theta", raw.get("rope_local_base_freq", 0.0))),
    }


def _write_rope(config: StackConfig) -> dict:
    local = {"rope_local_base_freq": config.local_rope_base} if config.local_rope_base else {}
    scaling = dict(config.rope_scaling) or None
    return {"rope_theta": config.rope_base, "rope_scaling": scaling} | local


def _read_window(raw: dict, family: Family) -> dict:
    known = {key: raw[key] for key in ("sliding_window", "layer_types") if key in family.defaults}
    kinds = known.get("layer_types")
    told = kinds and [i for i, kind in enumerate(kinds) if kind == "sliding_attention"]
    layers = tuple(family.local(raw) if told is None else told)
    window = known.get("sliding_window")
    return {"window": window, "window_layers": layers} if window and layers else {}


def _write_window(config: StackConfig, family: Family) -> dict:
    kinds = ("full_attention", "sliding_attention")
    raw = {
        "sliding_window": config.window or None,
        "layer_types": [kinds[i in config.window_layers] for i in range(config.layers)],
        "use_sliding_window": bool(config.window),
    }
    return {key: value for key, value in raw.items() if key in family.defaults}
