"""Tasks of lm-evaluation-harness: its YAML files as they are, for evaluation and for tuning.

Of its fields are read: task, include, dataset_path (json, csv, text, a TFDS or package source),
dataset_kwargs.data_files, output_type, the four splits, description, doc_to_text, doc_to_target,
doc_to_choice, fewshot_delimiter, target_delimiter, num_fewshot, generation_kwargs, metric_list.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError

from lmlite.data.sources import Row, read
from lmlite.data.splits import split_of
from lmlite.data.tasks import Example, Generation, Task, with_metrics
from lmlite.errors import UserError

OUTPUTS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
# Its names of metrics -> ours; those of a reading of the same scores have none of their own.
METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy",
    "acc_bytes": "accuracy",
    "mcc": "matthews",
    **{name: name for name in ("exact_match", "f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL")},
    **{name: name for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")},
}
_READERS = {"json": "jsonl", "csv": "csv", "text": "text"}
_REFUSED = ("process_docs", "process_results", "custom_dataset", "fewshot_split_config")


class _Loader(yaml.SafeLoader):
    """Keeps `!function module.name`, so that the error can name it."""


_Loader.add_constructor("!function", lambda loader, node: _Function(node.value))


class _Function(str):
    """A function of the user's that a file asks for."""


def load_yaml_task(path: str, fractions: Sequence[tuple[str, float]]) -> Task:
    """The task of a YAML file.

    fractions: of train, dev and test, by which a file's only split is divided (by hash). A test
    split that is missing is the validation split; a dev split that is missing is taken from the
    training split. UserError: what the file asks for and lmlite has not, by the field's name.
    """
    config = _config(Path(path).expanduser())
    output = config.get("output_type", "generate_until")
    if output not in OUTPUTS:
        raise UserError(f"{path}: output_type={output!r} is not supported; known: {OUTPUTS}")
    make = _maker(config, output, path)
    splits = {name: [make(i, row) for i, row in rows] for name, rows in
              _rows(config, path, fractions).items()}  # fmt: skip
    prompt = _text(config, "doc_to_text", path) if output != "loglikelihood_rolling" else None
    first = splits["test"][0]
    alike = all(e.choices == first.choices for e in splits["test"])
    task = Task(
        name=config.get("task", Path(path).stem),
        choices=first.choices if alike else (),
        **{name: tuple(examples) for name, examples in splits.items()},
        fewshot_delimiter=config.get("fewshot_delimiter", "\n\n"),
        target_delimiter=config.get("target_delimiter", " ") if prompt else "",
        description=config.get("description", ""),
        frame=_Frame(config.get("doc_to_text", "")),
        generation=_generation(config) if output == "generate_until" else Generation(),
    )
    return with_metrics(task, _metrics(config, path))


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The prompt with one text for every column."""

    template: str

    def __call__(self, text: str) -> str:
        return re.sub(r"\{\{.*?\}\}", lambda _: text, re.sub(r"\{%.*?%\}", "", self.template))


def _config(path: Path) -> dict[str, Any]:
    """The file's fields over those of the one it includes."""
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no task: it is not a mapping of fields")
    for field, value in config.items():
        if isinstance(value, _Function) or (field in _REFUSED and value):
            raise UserError(
                f"{path}: {field} is a function in Python, which lmlite does not run; write the "
                "rows that it makes to a file, or run lm_eval with --model lmlite"
            )
    if "include" in config:
        config = {**_config(path.parent / config.pop("include")), **config}
    return config


def _rows(config: Mapping, path: str, fractions) -> dict[str, list[tuple[int, Row]]]:
    """Numbered rows of train, dev and test."""
    names = {ours: config.get(f"{theirs}_split") for ours, theirs in
             (("train", "training"), ("dev", "validation"), ("test", "test"))}  # fmt: skip
    names["train"] = names["train"] or config.get("fewshot_split")
    names["test"] = names["test"] or names["dev"]
    if names["test"] is None:
        raise UserError(f"{path}: test_split and validation_split are missing; name one")
    if names["dev"] == names["test"]:
        names["dev"] = None
    found = {name: read(_source(config, split, path)) for name, split in names.items() if split}
    rows = {name: list(enumerate(own)) for name, own in found.items()}
    if "train" not in rows or names["train"] == names["test"]:
        return _divided(rows["test"], fractions)
    if "dev" not in rows:
        share = dict(fractions)["dev"]
        parts = _divided(rows["train"], (("train", 1 - share), ("dev", share), ("test", 0.0)))
        rows |= {name: parts[name] for name in ("train", "dev")}
    return rows


def _divided(rows, fractions) -> dict[str, list[tuple[int, Row]]]:
    parts: dict[str, list[tuple[int, Row]]] = {"train": [], "dev": [], "test": []}
    for i, row in rows:
        parts[split_of(str(i), fractions)].append((i, row))
    return parts


def _source(config: Mapping, split: str, path: str) -> str:
    """What `lmlite.data.sources.read` takes for a split."""
    kind = config.get("dataset_path", "")
    if ":" in str(kind):
        return f"{kind}:{split}"
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if kind not in _READERS or files is None:
        raise UserError(
            f"{path}: dataset_path={kind!r} cannot be read here; name json, csv or text with "
            "dataset_kwargs.data_files, or a source such as tfds:NAME or package:NAME"
        )
    file = files.get(split) if isinstance(files, dict) else files
    file = file[0] if isinstance(file, list) else file
    if file is None:
        raise UserError(f"{path}: dataset_kwargs.data_files has no split {split!r}")
    place = Path(file).expanduser()
    place = place if place.is_absolute() or place.exists() else Path(path).parent / place
    return f"{_READERS[kind]}:{place}"


def _maker(config: Mapping, output: str, path: str) -> Callable[[int, Row], Example]:
    """What makes an example of a row."""
    target = _text(config, "doc_to_target", path)
    prompt = _text(config, "doc_to_text", path) if output != "loglikelihood_rolling" else None
    choice = config.get("doc_to_choice")
    if output == "multiple_choice" and choice is None:
        raise UserError(f"{path}: doc_to_choice is missing; multiple_choice needs it")

    def make(i: int, row: Row) -> Example:
        choices = tuple(_choices(choice, row, path)) if output == "multiple_choice" else ()
        answer: Any = target(row)
        if choices:
            answer = _index(answer, choices, i, path)
        text = prompt(row) if prompt else ""
        return Example(str(i), str(text), choices, answer if choices else str(answer), str(i))

    return make


def _text(config: Mapping, field: str, path: str) -> Callable[[Row], Any]:
    """A field that is a column's name, a Jinja template, or a number."""
    value = config.get(field)
    if value is None:
        raise UserError(f"{path}: {field} is missing")

    def of(row: Row) -> Any:
        if isinstance(value, str):
            return row[value] if value in row else _render(value, row, field, path)
        return value

    return of


def _choices(value: Any, row: Row, path: str) -> list[str]:
    """The texts of a row's choices: given, a column's, or a template of a list."""
    found = value
    if isinstance(value, str):
        found = row[value] if value in row else _render(value, row, "doc_to_choice", path)
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, str):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"{path}: doc_to_choice gives no list but {found[:60]!r}") from error
    return [str(choice) for choice in found]


def _index(answer: Any, choices: Sequence[str], i: int, path: str) -> int:
    text = str(answer).strip()
    if text.isdecimal() and int(text) < len(choices):
        return int(text)
    if text in choices:
        return list(choices).index(text)
    raise UserError(
        f"{path}: doc_to_target of row {i} gives {text[:60]!r}, which is no choice and no number "
        f"below {len(choices)}: {', '.join(choices)[:200]}"
    )


_WORLD = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
_WORLD.filters["regex_replace"] = lambda text, pattern, to, count=0: re.sub(
    pattern, to, text, count=count
)


def _render(template: str, row: Row, field: str, path: str) -> str:
    try:
        return _WORLD.from_string(template).render(**row)
    except TemplateError as error:
        columns = ", ".join(map(str, row))
        raise UserError(f"{path}: {field}={template!r}: {error}; columns: {columns}") from error


def _generation(config: Mapping) -> Generation:
    given = config.get("generation_kwargs") or {}
    until = given.get("until", config.get("fewshot_delimiter", "\n\n"))
    until = (until,) if isinstance(until, str) else tuple(until)
    limit = given.get("max_gen_toks") or given.get("max_new_tokens") or 256
    temperature = float(given.get("temperature") or 0.0) if given.get("do_sample") else 0.0
    return Generation(int(limit), until, temperature)


def _metrics(config: Mapping, path: str) -> tuple[str, ...]:
    """Our names of the file's metrics; () for the usual one where it names none."""
    names = [one["metric"] for one in config.get("metric_list") or ()]
    known = [METRICS[name] for name in names if not isinstance(name, _Function) and name in METRICS]
    if names and not known:
        raise UserError(f"{path}: metric_list has none of {', '.join(METRICS)}, but {names}")
    return tuple(dict.fromkeys(known))
