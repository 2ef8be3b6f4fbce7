"""How answers are written and compared: generation_kwargs, filter_list and metric_list."""

import re
import string
from pathlib import Path
from typing import Any

from lmlite.data.harness.file import Fields
from lmlite.data.task import Generation
from lmlite.errors import UserError
from lmlite.metrics.measures import MEASURES

# lm_eval's names of metrics -> ours, where they differ. Its normalised accuracies are those of a
# reading of the same scores.
_METRICS = {"acc": "accuracy", "acc_norm": "accuracy", "acc_bytes": "accuracy", "mcc": "matthews"}
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_OF_DRAWS = ("top_k", "top_p", "min_p")  # say nothing of greedy decoding
_LENGTH = 256  # lm_eval's default
_IGNORED = {"ignore_punctuation": f"[{re.escape(string.punctuation)}]", "ignore_numbers": "[0-9]"}
_METRIC_FIELDS = {"metric", "aggregation", "higher_is_better", "hf_evaluate"}
_FILTER_FIELDS = {"function", "regex_pattern", "group_select"}
_MATCHING = {"regexes_to_ignore", "ignore_case", *_IGNORED}


def generation(fields: Fields, path: Path) -> Generation:
    """What generation_kwargs, the first filter and the options of exact_match ask for."""
    given = dict(fields.get("generation_kwargs", {}))
    until = given.pop("until", fields.get("fewshot_delimiter", "\n\n")) or ()
    lengths = [given.pop(name, None) for name in _LENGTHS]
    temperature = float(given.pop("temperature", 0.0) or 0.0)
    sampled = given.pop("do_sample", temperature > 0)
    if sampled and not temperature:
        raise UserError(
            f"{path}: generation_kwargs.do_sample=true needs a temperature above 0; set one"
        )
    if not sampled:
        temperature = 0.0
        given = {name: value for name, value in given.items() if name not in _OF_DRAWS}
    if given.get("num_beams") == 1:
        del given["num_beams"]
    if given:
        raise UserError(
            f"{path}: generation_kwargs.{min(given)} is not supported; leave it out, or evaluate "
            "by python -m lmlite.harness"
        )
    until = [until] if isinstance(until, str) else until
    return Generation(
        max_new_tokens=int(next((n for n in lengths if n is not None), _LENGTH)),
        stop=tuple(text for text in until if text),
        temperature=temperature,
        extract=_extract(fields, path),
        **_matching(fields, path),
    )


def metrics(fields: Fields, kind: type, path: Path) -> tuple[str, ...]:
    """Our names of the file's metrics; () for the usual one where it names none that we have."""
    names = [one.get("metric") for one in _metric_list(fields, path)]
    ours = [_METRICS.get(name, name) for name in names]
    return tuple(
        dict.fromkeys(name for name in ours if name in MEASURES and MEASURES[name].of is kind)
    )


def _metric_list(fields: Fields, path: Path) -> list[dict[str, Any]]:
    found = fields.get("metric_list", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{path}: metric_list={found!r} is no list of `metric: NAME`")
    return found


def _matching(fields: Fields, path: Path) -> dict[str, Any]:
    """What exact_match leaves out of both texts, in the order of lm_eval."""
    (exact,) = [one for one in _metric_list(fields, path) if one.get("metric") == "exact_match"][
        :1
    ] or [{}]
    if unknown := sorted(set(exact) - _METRIC_FIELDS - _MATCHING):
        raise UserError(f"{path}: metric_list: {unknown[0]} of exact_match is not supported")
    ignore = [*exact.get("regexes_to_ignore", [])]
    ignore += [pattern for name, pattern in _IGNORED.items() if exact.get(name)]
    return {"ignore": tuple(ignore), "ignore_case": bool(exact.get("ignore_case", False))}


def _extract(fields: Fields, path: Path) -> str:
    """The regex that finds the answer in what is written: that of the first filter, '' for none."""
    found = ""
    for step in (fields.get("filter_list") or [{}])[0].get("filter", []):
        if unread := sorted(set(step) - _FILTER_FIELDS):
            raise UserError(
                f"{path}: filter_list: {unread[0]} of {step['function']} is not supported; leave "
                "it out, or evaluate by python -m lmlite.harness"
            )
        if step["function"] == "regex" and not found:
            found = _regex(step, path)
        elif step["function"] not in ("take_first", "remove_whitespace"):
            raise UserError(
                f"{path}: filter_list: function {step['function']!r} is not supported; leave it "
                "out, or evaluate by python -m lmlite.harness"
            )
    return found


def _regex(step: dict[str, Any], path: Path) -> str:
    """As `Generation.extract`, which finds the last match, and where a dot is any character."""
    pattern = step.get("regex_pattern", r"#### (\-?[0-9\.\,]+)")
    select = step.get("group_select", 0)
    try:
        count = re.compile(pattern).groups
    except re.error as error:
        raise UserError(f"{path}: filter_list: {pattern!r} is no regex: {error}") from error
    if count > 1 or select not in (0, -1):
        raise UserError(
            f"{path}: filter_list: a regex of one group, its first (0) or last (-1) match, is "
            f"supported, not {pattern!r} with group_select={select}"
        )
    flags, bare = re.fullmatch(r"(?:\(\?([aimsux]+)\))?(.*)", pattern, re.DOTALL).groups("")
    own = f"(?{flags}{'' if 's' in flags else '-s'}:{bare})"
    own = own if count else f"({own})"
    return own if select else rf"\A(?s:.*?){own}"
