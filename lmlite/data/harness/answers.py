"""How answers are written, and found in what is written: generation_kwargs and filter_list."""

import re
from pathlib import Path
from typing import Any

from lmlite.data.harness.file import Fields
from lmlite.data.harness.metrics import matching
from lmlite.data.task import Generation
from lmlite.errors import UserError

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_OF_DRAWS = ("top_k", "top_p", "min_p")  # say nothing of greedy decoding
_LENGTH = 256  # lm_eval's default
_FILTER_FIELDS = {"function", "regex_pattern", "group_select", "fallback"}


def generation(fields: Fields, path: Path) -> Generation:
    """What generation_kwargs, the first filter and the options of exact_match ask for."""
    given = dict(fields.get("generation_kwargs", {}))
    until = given.pop("until", fields.get("fewshot_delimiter", "\n\n")) or ()
    lengths = [given.pop(name, None) for name in _LENGTHS]
    temperature = _number(float, given.pop("temperature", 0.0) or 0.0, path)
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
        extract_right=False,
        max_new_tokens=_number(int, next((n for n in lengths if n is not None), _LENGTH), path),
        stop=tuple(text for text in until if text),
        temperature=temperature,
        extract=_extract(fields, path),
        unfound=_filters(fields, path).get("regex", {}).get("fallback", "[invalid]"),
        strip="answer" if "remove_whitespace" in _filters(fields, path) else "none",
        **matching(fields, path),
    )


def _filters(fields: Fields, path: Path) -> dict[str, dict[str, Any]]:
    """The steps of the first filter by their functions."""
    first = (fields.get("filter_list") or [{}])[0]
    steps = first.get("filter", []) if isinstance(first, dict) else None
    if not isinstance(steps, list) or not all(
        isinstance(s, dict) and "function" in s for s in steps
    ):
        raise UserError(f"{path}: filter_list: {first!r} has no list `filter` of `function: NAME`")
    for step in steps:
        if step["function"] not in ("regex", "take_first", "remove_whitespace"):
            raise UserError(
                f"{path}: filter_list: function {step['function']!r} is not supported; leave it "
                "out, or evaluate by python -m lmlite.harness"
            )
        if unread := sorted(set(step) - _FILTER_FIELDS):
            raise UserError(
                f"{path}: filter_list: {unread[0]} of {step['function']} is not supported; leave "
                "it out, or evaluate by python -m lmlite.harness"
            )
    names = [step["function"] for step in steps]
    if "remove_whitespace" in names[: names.index("regex") if "regex" in names else 0]:
        raise UserError(
            f"{path}: filter_list: remove_whitespace before regex is not supported; put it after"
        )
    found = {step["function"]: step for step in steps}
    if len(found) < len(steps):
        raise UserError(f"{path}: filter_list: a function stands twice in one filter; name it once")
    return found


def _extract(fields: Fields, path: Path) -> str:
    """The regex that finds the answer in what is written: that of the first filter, '' for none."""
    filters = _filters(fields, path)
    return _regex(filters["regex"], path) if "regex" in filters else ""


def _number(kind: type, value: Any, path: Path) -> Any:
    """A length or a temperature."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise UserError(f"{path}: generation_kwargs: {value!r} is no number") from None


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
