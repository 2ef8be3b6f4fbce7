"""How answers are written and compared: generation_kwargs, filter_list and metric_list."""

import re
import string
from pathlib import Path
from typing import Any

from absl import logging

from lmlite.data.harness.file import Fields
from lmlite.data.task import Generation
from lmlite.errors import UserError
from lmlite.metrics.measures import MEASURES

# lm_eval's names of metrics -> ours, where they differ, of multiple_choice.
_NAMES = {"acc": "accuracy", "mcc": "matthews", "f1": "binary_f1"}
# What it takes where a file has no metric_list; of a loglikelihood also acc.
_USUAL = {
    "multiple_choice": ("accuracy", "acc_norm"),
    "loglikelihood": ("perplexity",),
    "loglikelihood_rolling": ("bits_per_byte", "byte_perplexity", "word_perplexity"),
    "generate_until": ("exact_match",),
}
_AGGREGATIONS = {
    "brier_score": "brier_score",
    "mcc": "matthews_corrcoef",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
}
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
        max_new_tokens=_number(int, next((n for n in lengths if n is not None), _LENGTH), path),
        stop=tuple(text for text in until if text),
        temperature=temperature,
        extract=_extract(fields, path),
        strip="answer" if "remove_whitespace" in _filters(fields, path) else "none",
        **_matching(fields, path),
    )


def metrics(fields: Fields, kind: type, path: Path) -> tuple[str, ...]:
    """Our names of the file's metrics, or of lm_eval's usual ones where it names none."""
    output = fields.get("output_type", "generate_until")
    named = [_metric(one, output, kind, path) for one in _metric_list(fields, path)]
    return tuple(dict.fromkeys(filter(None, named))) or _USUAL[output]


def _metric(one: dict[str, Any], output: str, kind: type, path: Path) -> str:
    """Our name of a metric, '' for the one that is left out."""
    name = one.get("metric")
    if (output, name) == ("loglikelihood", "acc"):
        logging.warning(
            "%s: metric acc of a loglikelihood is left out: python -m lmlite.harness has it", path
        )
        return ""
    ours = _NAMES.get(name, name) if output == "multiple_choice" else name
    if ours not in MEASURES or MEASURES[ours].of is not kind:
        known = set(_NAMES) if output == "multiple_choice" else set()
        known |= {n for n in MEASURES if MEASURES[n].of is kind and n not in _NAMES.values()}
        raise UserError(
            f"{path}: metric_list: {name!r} is not supported for {output}; known: "
            f"{', '.join(sorted(known))}; leave it out, or evaluate by python -m lmlite.harness"
        )
    if unknown := sorted(
        set(one) - _METRIC_FIELDS - (_MATCHING if name == "exact_match" else set())
    ):
        raise UserError(f"{path}: metric_list: {unknown[0]} of {name} is not supported")
    mean = ours.startswith("acc_") or not MEASURES[ours].whole
    usual = _AGGREGATIONS.get(name, "mean" if mean else name)
    if one.get("aggregation", usual) != usual:
        raise UserError(
            f"{path}: metric_list: aggregation={one['aggregation']!r} of {name} is not supported; "
            f"leave it out for {usual!r}"
        )
    return ours


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
    ignore = [*exact.get("regexes_to_ignore", [])]
    ignore += [pattern for name, pattern in _IGNORED.items() if exact.get(name)]
    return {"ignore": tuple(ignore), "ignore_case": bool(exact.get("ignore_case", False))}


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
