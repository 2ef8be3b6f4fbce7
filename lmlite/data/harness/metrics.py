"""What answers are judged by: metric_list."""

import re
import string
from pathlib import Path
from typing import Any

from lmlite.data.harness.file import Fields
from lmlite.errors import UserError
from lmlite.metrics.measures import MEASURES

# lm_eval's names of metrics -> ours, where they differ.
_NAMES = {
    "multiple_choice": {"acc": "accuracy", "mcc": "matthews", "f1": "binary_f1"},
    "loglikelihood": {"acc": "greedy_accuracy"},
}
_OWN = {ours for names in _NAMES.values() for ours in names.values()}  # which no file has
# What it takes where a file has no metric_list.
_USUAL = {
    "multiple_choice": ("accuracy", "acc_norm"),
    "loglikelihood": ("perplexity", "greedy_accuracy"),
    "loglikelihood_rolling": ("bits_per_byte", "byte_perplexity", "word_perplexity"),
    "generate_until": ("exact_match",),
}
_AGGREGATIONS = {
    "bits_per_byte": "bits_per_byte",
    "brier_score": "brier_score",
    "mcc": "matthews_corrcoef",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
}
_IGNORED = {"ignore_punctuation": f"[{re.escape(string.punctuation)}]", "ignore_numbers": "[0-9]"}
_METRIC_FIELDS = {"metric", "aggregation", "higher_is_better", "hf_evaluate"}
_MATCHING = {"regexes_to_ignore", "ignore_case", *_IGNORED}


def metrics(fields: Fields, kind: type, path: Path) -> tuple[str, ...]:
    """Our names of the file's metrics, or of lm_eval's usual ones where it names none."""
    output = fields.get("output_type", "generate_until")
    named = [_metric(one, output, kind, path) for one in _metric_list(fields, path)]
    return tuple(dict.fromkeys(named)) or _USUAL[output]


def _metric(one: dict[str, Any], output: str, kind: type, path: Path) -> str:
    """Our name of a metric."""
    name, names = one.get("metric"), _NAMES.get(output, {})
    ours = names.get(name, name)
    if ours not in MEASURES or MEASURES[ours].of is not kind:
        known = {*names, *(n for n in MEASURES if MEASURES[n].of is kind and n not in _OWN)}
        raise UserError(
            f"{path}: metric_list: {name!r} is not supported for {output}; known: "
            f"{', '.join(sorted(known))}; leave it out, or evaluate by python -m lmlite.harness"
        )
    _check_options(one, ours, path)
    return ours


def _check_options(one: dict[str, Any], ours: str, path: Path) -> None:
    """Refuses an option or an aggregation that would change the metric."""
    name = one["metric"]
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


def _metric_list(fields: Fields, path: Path) -> list[dict[str, Any]]:
    found = fields.get("metric_list", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{path}: metric_list={found!r} is no list of `metric: NAME`")
    return found


def matching(fields: Fields, path: Path) -> dict[str, Any]:
    """What exact_match leaves out of both texts, in the order of lm_eval."""
    (exact,) = [one for one in _metric_list(fields, path) if one.get("metric") == "exact_match"][
        :1
    ] or [{}]
    ignore = [*exact.get("regexes_to_ignore", [])]
    ignore += [pattern for name, pattern in _IGNORED.items() if exact.get(name)]
    return {"ignore": tuple(ignore), "ignore_case": bool(exact.get("ignore_case", False))}
