"""A row's prompt, answer and choices: a column's name, a Jinja template, or a value.

As in `lm_eval.api.task.ConfigurableTask`: a number that a template gives is an index where there
are choices, a column's text is one of the choices, and what stands in brackets is a list.
"""

import ast
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from lmlite.data.harness.file import Fields
from lmlite.data.sources import Row
from lmlite.errors import UserError

_WORLD = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_WORLD.filters["regex_replace"] = lambda text, pattern, to, count=0: re.sub(
    pattern, to, text, count=count
)
_OF_TEMPLATES = (
    TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
    re.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Templates:
    """The fields of the task file at `path` that are filled in with a row's columns."""

    fields: Fields
    path: Path

    def text(self, name: str, row: Row) -> str:
        """A field's text. UserError for what is none."""
        found, filled = self._value(name, row)
        index = filled and found.isdecimal() and "doc_to_choice" in self.fields
        if isinstance(found, str) and not index:
            return found
        raise UserError(
            f"{self.path}: {name} gives {found!r}, which is no text; the prompt of each choice "
            "(several inputs) is not supported"
        )

    def choices(self, row: Row) -> tuple[str, ...]:
        """The texts of a row's choices."""
        found, filled = self._value("doc_to_choice", row)
        if filled:
            found = _literal(found)
        if isinstance(found, dict) and not filled:
            found = list(found.values())
        if not isinstance(found, list) or len(found) < 2:
            raise UserError(f"{self.path}: doc_to_choice gives no list of choices but {found!r}")
        return tuple(map(str, found))

    def index(self, row: Row, choices: Sequence[str]) -> int:
        """Which of its choices is right."""
        found = self._answer(row)
        if isinstance(found, str) and found in choices:
            found = list(choices).index(found)
        if isinstance(found, int) and 0 <= found < len(choices):
            return int(found)
        raise UserError(
            f"{self.path}: doc_to_target gives {found!r}, which is neither one of the choices nor "
            f"an index below {len(choices)}: {', '.join(choices)[:200]}"
        )

    def answers(self, row: Row) -> list[str]:
        """The texts to score or to write: of several each is right."""
        found = self._answer(row, several=True)
        if isinstance(found, int) and "doc_to_choice" in self.fields:
            choices = self.choices(row)
            return [choices[self.index(row, choices)]]
        return list(map(str, found)) if isinstance(found, list) else [str(found)]

    def _answer(self, row: Row, several: bool = False) -> Any:
        found, filled = self._value("doc_to_target", row)
        if filled and found.isdecimal() and "doc_to_choice" in self.fields:
            found = int(found)
        elif filled and found[:1] == "[" and found[-1:] == "]":
            found = _literal(found)
        if found in (None, []) or (isinstance(found, list) and not several):
            raise UserError(
                f"{self.path}: doc_to_target gives {found!r}; one answer a row is needed"
            )
        return found

    def _value(self, name: str, row: Row) -> tuple[Any, bool]:
        """A column's value or what the field holds; or a template filled in, and then true."""
        if name not in self.fields:
            raise UserError(f"{self.path}: {name} is missing")
        value = self.fields[name]
        if not isinstance(value, str) or value in row:
            return row[value] if isinstance(value, str) else value, False
        try:
            return _WORLD.from_string(value).render(**row), True
        except _OF_TEMPLATES as error:
            raise UserError(
                f"{self.path}: {name}={value!r}: {error}; columns: {', '.join(map(str, row))}"
            ) from error


def _literal(text: str) -> Any:
    """What a text of Python says, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
