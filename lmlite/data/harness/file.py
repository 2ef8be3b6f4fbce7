"""The fields of a task file, with those of the files that it includes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lmlite.config import nearest
from lmlite.errors import UserError

Fields = dict[str, Any]
# What changes prompts or scores in ways that lmlite has not.
_REFUSED = (
    "process_docs", "process_results", "custom_dataset", "use_prompt", "gen_prefix", "doc_to_image",
    "doc_to_audio", "group",
)  # fmt: skip
_OF_SHOTS = {"sampler", "split"}  # what is read of fewshot_config


# What lmlite reads, and what names, explains or checks a task without changing it.
_KNOWN = frozenset(
    "task task_alias tag group metadata include dataset_path dataset_name dataset_kwargs"
    " training_split validation_split test_split fewshot_split doc_to_text doc_to_target"
    " doc_to_choice output_type description target_delimiter fewshot_delimiter fewshot_config"
    " num_fewshot metric_list generation_kwargs filter_list repeats should_decontaminate"
    " doc_to_decontamination_query unsafe_code".split()
) | set(_REFUSED)


_KIND_NAMES = {dict: "a mapping", list: "a list", str: "text"}
_KINDS = {
    dict: ("fewshot_config", "generation_kwargs", "dataset_kwargs"),
    list: ("filter_list", "metric_list"),
    str: (
        "output_type", "dataset_path", "dataset_name", "training_split", "validation_split",
        "test_split", "fewshot_split", "description", "target_delimiter", "fewshot_delimiter",
    ),
}  # fmt: skip


class _Function(str):
    """A function of the user's that a file asks for, by its name."""


class _Loader(yaml.SafeLoader):
    """Keeps `!function module.name`, so that an error can name it."""


_Loader.add_constructor("!function", lambda loader, node: _Function(node.value))


def read_fields(path: Path) -> Fields:
    """The fields of the file at `path`; those that are null are left out.

    UserError: a file that is missing or no YAML mapping, a field that needs a function in Python,
    and one that lmlite does not read although it would change prompts or scores.
    """
    fields = {name: value for name, value in _merged(path, ()).items() if value is not None}
    if not isinstance(fields.get("task", ""), str):
        raise UserError(f"{path} is a group of tasks; name the file of one of them")
    for name, value in fields.items():
        if function := _function(value):
            raise UserError(
                f"{path}: {name} is a function in Python ({function}), which is not run here; "
                "write the rows that it makes to a file, or evaluate by python -m lmlite.harness"
            )
        if name not in _KNOWN:
            raise UserError(
                f"{path}: there is no field {name!r}; the nearest is {nearest(name, _KNOWN)!r}"
            )
    for kind, names in _KINDS.items():
        for name in names:
            if not isinstance(fields.get(name, kind()), kind):
                raise UserError(f"{path}: {name}={fields[name]!r} must be {_KIND_NAMES[kind]}")
    shots = {name: value for name, value in fields.get("fewshot_config", {}).items() if value}
    unread = [name for name in _REFUSED if fields.get(name)]
    unread += [f"fewshot_config.{name}" for name in shots if name not in _OF_SHOTS]
    if unread:
        raise UserError(
            f"{path}: {unread[0]} is not supported; leave it out, or evaluate by "
            "python -m lmlite.harness"
        )
    return fields


def _merged(path: Path, seen: tuple[Path, ...]) -> Fields:
    """The file's fields over those that it includes."""
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {why}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} holds no task: it is not a mapping of fields")
    if path in seen:
        raise UserError(f"{path} includes itself; remove the include")
    included = fields.pop("include", None) or []
    found: Fields = {}
    for other in [included] if isinstance(included, str) else included:
        found |= _merged(path.parent / other, (*seen, path))
    return {**found, **fields}


def _function(value: Any) -> str:
    """The first function anywhere in a field's value; '' for none."""
    if isinstance(value, _Function):
        return value
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list):
        return ""
    return next((found for one in inner if (found := _function(one))), "")
