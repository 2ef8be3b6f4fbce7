"""What a request of lm-evaluation-harness, and the model's own generation_config.json where the
request says nothing, ask of generation, in the terms of `lmlite.decode`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmlite.errors import UserError
from lmlite.models.json_file import read_json

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_LENGTH = 256  # the harness's default
_OF_DRAWS = ("top_k", "top_p", "min_p")
_SAME = ("repetition_penalty", "length_penalty", "early_stopping")
_DEFAULTS = {*_SAME, "num_beams", *_OF_DRAWS}  # of generation_config.json
# What changes even greedy texts, and `generate` has not.
_UNKNOWN = (
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty",
    "bad_words_ids", "min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "exponential_decay_length_penalty",
)  # fmt: skip


def defaults(place: Path) -> dict[str, Any]:
    """What the generation_config.json of a model's directory says; nothing of a GGUF file.

    Raises UserError for a field that `generate` has not and that would change the texts.
    """
    path = place / "generation_config.json"
    said = read_json(path) if path.is_file() else {}
    for name in _UNKNOWN:
        if said.get(name):
            raise UserError(
                f"{path}: {name}={said[name]!r} is not supported; remove it there to generate "
                "without it"
            )
    return {name: said[name] for name in _DEFAULTS if said.get(name) is not None}


def options(given: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of `generate`: stop, max_new_tokens, temperature and what else is given.

    usual: what holds where nothing is given, see `defaults`.

    Draws are made where do_sample says so or, if it is not there, temperature is above 0. Raises
    UserError for what `generate` has not.
    """
    rest = {**(usual or {}), **given}
    until = rest.pop("until", None) or ()
    lengths = [rest.pop(name, None) for name in _LENGTHS]
    temperature = float(rest.pop("temperature", None) or 0.0)
    sampled = rest.pop("do_sample", None)
    sampled = temperature > 0 if sampled is None else sampled
    drawn = {name: rest.pop(name) for name in _OF_DRAWS if name in rest}
    found = {name: rest.pop(name) for name in _SAME if name in rest}
    beams = rest.pop("num_beams", 1)
    if not isinstance(found.get("early_stopping", False), bool):
        raise UserError(
            f"generation_kwargs: early_stopping={found['early_stopping']!r} is not supported; "
            "set it to true or false"
        )
    if sampled and not temperature:
        raise UserError("generation_kwargs: do_sample=true needs a temperature above 0; set one")
    if rest:
        raise UserError(f"generation_kwargs: {min(rest)!r} is not supported; leave it out")
    return {
        "stop": tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        "max_new_tokens": int(next((n for n in lengths if n is not None), _LENGTH)),
        "temperature": temperature if sampled else 0.0,
        "beams": int(beams),
        **(drawn if sampled else {}),
        **found,
    }
