"""Numbers that no run can have: told of before anything is loaded."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from lmlite.errors import UserError

SEEDS = 2**32  # a key of JAX tells no more of them apart
BELOW_ONE = math.nextafter(1, 0)


def number(field: str, value: Any, least: float, most: float = math.inf, kind: type = Real) -> None:
    """Raises UserError where the value is no finite number of a kind in least .. most."""
    right = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not least <= value <= most:
        said = "whole number" if kind is Integral else "number"
        upto = "" if most == math.inf else f" and at most {most}"
        raise UserError(f"{field}={value!r} must be a {said} of at least {least}{upto}")


def check(config: Mapping[str, Any], field: str, least: int, end: int | None = None) -> None:
    """Raises UserError where the field's number, or one of its numbers, is not in [least, end).

    Of several there must be one, and none twice.
    """
    given = config[field]
    values = given if isinstance(given, tuple | list) else [given]
    for value in values:
        number(field, value, least, math.inf if end is None else end - 1, Integral)
    if not values or len(set(values)) < len(values):
        raise UserError(f"{field}={given!r} must name at least one number, and none twice")
