"""The record of a family; see `Family`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmlite.models.config import DecoderConfig, ModelConfig


def _no_layers(raw: dict) -> list[int]:
    return []


def _nothing(_) -> dict:
    return {}


@dataclass(frozen=True)
class Family:
    """One `model_type` of Hugging Face.

    architecture: the class `transformers` opens it with; headless: the one where there is no head
    over the vocabulary, whose names lack the prefix `base`.
    defaults: what its config.json may leave out; a window or layer types that are not here are
    words the family does not know, and are not read.
    fields: config field -> key of config.json; fixed: fields that no key tells; derive: fields that
    several keys tell together, of config.json with its defaults; words: keys that a config's
    `fields` do not give, or not so.
    modules: parameter module, or single parameter, -> stored name, as in weights.py; ungated: those
    that differ where the MLP has no gate; classified: where there is a classifier of texts;
    input_first: kernels are stored [in, out].
    presence: stored tensor, without the names of the modules around it, -> the fields that its
    presence sets. unused: regex of such names that are not read. copies: such names that the token
    table may have instead, or again. unties: whether a model may have a head beside that table.
    local: the layers that `sliding_window` holds for, where `layer_types` is not given.
    """

    architecture: str
    defaults: Mapping[str, Any]
    fields: Mapping[str, str]
    modules: Mapping[str, str]
    config: type[ModelConfig] = DecoderConfig
    headless: str = ""
    base: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[dict], dict] = _nothing
    words: Callable[[ModelConfig], dict] = _nothing
    ungated: Mapping[str, str] = field(default_factory=dict)
    input_first: bool = False
    classified: Mapping[str, str] = field(default_factory=dict)
    presence: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    unused: str = ""
    copies: tuple[str, ...] = ()
    unties: bool = True
    local: Callable[[dict], list[int]] = _no_layers
