"""Numbers of a config that no run can have: told of before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from lmlite.errors import UserError

SEEDS = 2**32  # a key of JAX tells no more of them apart


def check(config: Mapping[str, Any], field: str, least: int, end: int | None = None) -> None:
    """Raises UserError where the field's number, or one of its numbers, is not in [least, end)."""
    given = config[field]
    several = isinstance(given, tuple | list)
    if any(n < least or (end is not None and n >= end) for n in (given if several else [given])):
        limits = f"at least {least}" + (f" and below {end}" if end is not None else "")
        raise UserError(f"{field}={given}: {'each' if several else 'it'} must be {limits}")
