"""Arms from their configuration: `KINDS` is the one table of them."""

from collections.abc import Mapping
from typing import Any

from lmlite.adapt import METHODS, Method
from lmlite.arms.arm import Arm, Cost, Labelled, Log, Predictor
from lmlite.arms.examples import Handling
from lmlite.arms.in_context import InContext
from lmlite.arms.together import Fit, fit_together
from lmlite.arms.tuned import Tuned
from lmlite.config import nearest
from lmlite.errors import UserError
from lmlite.train import Settings


def _in_context(spec: Mapping[str, Any]) -> Arm:
    return InContext(**_fields(spec, "kind"))


def _tuned(spec: Mapping[str, Any]) -> Arm:
    method = _method(_fields(spec, "kind", "train", "optim", "data", "readings"))
    settings = Settings(optim=dict(spec["optim"]), **spec["train"])
    return Tuned(method, settings, Handling(**spec["data"]), tuple(spec["readings"]))


def _method(spec: Mapping[str, Any]) -> Method:
    """A method of METHODS with its hyperparameters; `parts` are specs of methods, by any name."""
    if spec["method"] not in METHODS:
        raise UserError(_unknown("method", spec["method"], METHODS))
    hyper = _fields(spec, "method")
    if "parts" in hyper:
        hyper["parts"] = tuple(_method(part) for part in hyper["parts"].values())
    return METHODS[spec["method"]](**hyper)


KINDS = {"in_context": _in_context, "tuned": _tuned}


def build(spec: Mapping[str, Any]) -> Arm:
    """The arm of a config entry: its `kind` is a key of `KINDS`, the rest are its fields.

    Raises UserError for an unknown kind, method or field.
    """
    if spec["kind"] not in KINDS:
        raise UserError(_unknown("arm kind", spec["kind"], KINDS))
    try:
        return KINDS[spec["kind"]](spec)
    except TypeError as error:
        raise UserError(f"arm {dict(spec)} has a field its kind does not take: {error}") from error


def _unknown(what: str, name: str, known: Mapping) -> str:
    return f"{what} {name!r} is unknown; the nearest is {nearest(name, known)!r}"


def _fields(spec: Mapping[str, Any], *but: str) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in but}


__all__ = ["KINDS", "Arm", "Cost", "Fit", "Labelled", "Log", "Predictor", "build", "fit_together"]
