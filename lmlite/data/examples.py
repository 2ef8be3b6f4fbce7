"""The rows of a source as the examples of a task."""

import dataclasses
import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lmlite.config import nearest
from lmlite.data.sources import Row, read
from lmlite.data.splits import position
from lmlite.data.task import Example
from lmlite.errors import UserError

_PATHS = string.Formatter()


def examples_of(config: Any, source: str) -> list[Example]:
    """The examples of one source, at most `config.limit` of them."""
    rows = read(source)
    ids = [str(_column(r, config.id, "id")) if config.id else str(i) for i, r in enumerate(rows)]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise UserError(f"task.id={config.id!r}: {count} rows of {source} share the id {name!r}")
    pairs = zip(ids, rows, strict=True)
    examples = [_example(config, name, row) for name, row in pairs if not _ignored(config, row)]
    if not config.group and not config.chunk:
        examples = _grouped(examples)
    if config.limit:
        examples = sorted(examples, key=lambda e: position("limit", 0, e.id))[: config.limit]
    if not config.chunk:
        return examples
    return [part for example in examples for part in _chunks(example, config.chunk)]


def _grouped(examples: list[Example]) -> list[Example]:
    """Rows that ask the same are one group, so that no test item is trained on."""
    first: dict[tuple, str] = {}
    asked = [(e.prompt, e.choices, "" if e.choices else e.target) for e in examples]
    pairs = zip(examples, asked, strict=True)
    return [dataclasses.replace(e, group=first.setdefault(key, e.group)) for e, key in pairs]


def _chunks(example: Example, size: int) -> Iterator[Example]:
    """The example with its answer cut at line breaks into parts of at least `size` characters."""
    parts, text = [], ""
    for line in str(example.target).splitlines(keepends=True):
        text += line
        if len(text) >= size:
            parts.append(text)
            text = ""
    for i, part in enumerate([*parts, *([text] if text.strip() else [])]):
        yield dataclasses.replace(example, id=f"{example.id}-{i}", target=part)


def _ignored(config: Any, row: Row) -> bool:
    ignored = tuple(map(str, config.ignore_labels))
    return bool(ignored) and str(row.get(config.label)) in ignored


def fixed_choices(config: Any) -> tuple[str, ...]:
    """The choices that all rows have: task.choices, or else the labels; () where rows have own."""
    return tuple(map(str, () if config.choices_columns else config.choices or config.labels))


def _example(config: Any, name: str, row: Row) -> Example:
    choices = fixed_choices(config)
    if config.choices_columns:
        choices = tuple(_text(row, c, "choices_columns") for c in config.choices_columns)
    target, *further = _targets(config, name, row, len(choices))
    return Example(
        id=name,
        prompt=_render(config.template, row),
        choices=choices,
        target=target,
        group=str(_column(row, config.group, "group")) if config.group else name,
        program=_program(config, row) if config.tests else "",
        further=tuple(further),
    )


def _program(config: Any, row: Row) -> str:
    tests, function = _column(row, config.tests, "tests"), _column(row, config.entry_point, "tests")
    return f"\n\n{tests}\n\ncheck({function})\n"


def _render(template: str, row: Row) -> str:
    try:
        for _, field, _, _ in string.Formatter().parse(template):
            if field is not None:
                _column(row, field, "template")
        return template.format(**row)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"task.template={template!r} cannot be filled in: {error}") from error


def _targets(config: Any, name: str, row: Row, choices: int) -> Sequence[int | str]:
    """The index of the row's label; where the task lists neither labels nor choices its text, or
    the texts of a list, all of which are right (of SQuAD's form, say).
    """
    labels = [str(label) for label in config.labels]
    found = _column(row, config.label, "label")
    if not labels and not choices:
        return _texts(found, config.label, row)
    value = _text(row, config.label, "label")
    return [_index(config, name, value, labels, choices)]


def _index(config: Any, name: str, value: str, labels: list[str], choices: int) -> int:
    if labels:
        if value not in labels:
            raise UserError(
                f"label {value!r} of row {name} (column {config.label!r}) is not in task.labels: "
                f"{', '.join(labels)}; add it, or list it in task.ignore_labels"
            )
        return labels.index(value)
    if not value.isdecimal() or int(value) >= choices:
        raise UserError(
            f"label {value!r} of row {name} (column {config.label!r}) is no position of a choice, "
            f"0 to {choices - 1}; list its values in task.labels"
        )
    return int(value)


def _texts(found: Any, column: str, row: Row) -> list[str]:
    """The right answers of a row, none twice."""
    values = [*found] if isinstance(found, list | tuple) else [found]
    if not values or any(_empty(value) or not str(value).strip() for value in values):
        raise _no_value("label", column, found, row)
    return list(dict.fromkeys(map(str, values)))


def _text(row: Row, column: str, field: str) -> str:
    """A column's text, of which there must be some: an empty one would stand for nothing."""
    value = str(_column(row, column, field))
    if not value.strip():
        raise _no_value(field, column, value, row)
    return value


def _column(row: Row, column: str, field: str) -> Any:
    """A column's value, or what stands in it: 'answers[text]'."""
    first = column if column in row else re.split(r"[.\[]", column)[0]
    if first not in row:
        near = nearest(first, row)
        raise UserError(
            f"task.{field}: there is no column {first!r}; the nearest is {near!r} "
            f"of {', '.join(map(str, row))}"
        )
    try:
        value = row[column] if column in row else _PATHS.get_field(column, (), row)[0]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"task.{field}: there is no {column!r} in the row {str(row)[:80]}..."
        ) from error
    if _empty(value):
        raise _no_value(field, column, value, row)
    return value


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # as tables have it


def _no_value(field: str, column: str, value: Any, row: Row) -> UserError:
    return UserError(
        f"task.{field}: column {column!r} is empty ({value!r}) in the row {str(row)[:80]}...; fill "
        "it, or leave the row out"
    )
