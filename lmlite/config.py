"""Config files: strict arguments, typed overrides, sweeps.

A config file defines `get_config(task='rotten_tomatoes', ...)`, whose keywords are its arguments
and whose defaults are visible in its signature, and any number of `sweep_NAME()` generators of
override dicts. Every leaf of the config it returns has a default, and that default is the type.
"""

import ast
import importlib.util
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from lmlite.errors import UserError

ROOT = Path(__file__).resolve().parents[1]  # holds configs/, in a clone and when installed


def load(source: str) -> tuple[ModuleType, ConfigDict]:
    """The module and the locked config of `FILE.py[:key=value,...]`.

    FILE is looked for from the current folder, then beside lmlite. Arguments become the keywords
    of `get_config`. A comma separates two arguments only where `key=` follows, so values may hold
    commas, colons and '='. A ValueError of `get_config` is the user's.
    """
    file, _, arguments = source.partition(":")
    module = _import(file)
    parameters = inspect.signature(module.get_config).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    chosen = _typed(defaults, _pairs(arguments), f"--config={file}:")
    try:
        config = module.get_config(**chosen)
    except ValueError as error:
        raise UserError(f"--config={source}: {error}") from error
    return module, config.lock()


def override(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with `{'dotted.path': value}` in place; values may be text.

    Raises UserError if a path is not that of a leaf, or a value is not of its default's type.
    """
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(_typed(leaves(config), overrides, "config."))
    return changed.lock()


def sweeps(module: ModuleType) -> dict[str, Callable[[], Iterable[dict]]]:
    """NAME -> the generator function `sweep_NAME` of a config file."""
    found = {n: f for n, f in vars(module).items() if n.startswith("sweep_") and callable(f)}
    return {name.removeprefix("sweep_"): function for name, function in found.items()}


def product(*points: Iterable[dict]) -> Iterator[dict]:
    """Every combination of one override dict from each sweep; no sweep gives one empty dict."""
    for combination in itertools.product(*points):
        merged = {path: value for point in combination for path, value in point.items()}
        if len(merged) < sum(map(len, combination)):
            raise UserError(f"two sweeps set the same field ({', '.join(merged)}); drop one sweep")
        yield merged


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{'dotted.path': value}` of a nested config or dict, in its order."""
    flat = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping | ConfigDict)
        flat |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def to_json(config: ConfigDict) -> dict:
    """The config as plain JSON values (tuples become lists), as a JSON reader would return it."""
    return json.loads(json.dumps(config.to_dict()))


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of `names` ('' if there are none), first among those with the same end."""
    names = list(names)
    end = name.rpartition(".")[2]
    same_end = [other for other in names if other.rpartition(".")[2] == end]
    similarity = SequenceMatcher(b=name)

    def ratio(other: str) -> float:
        similarity.set_seq1(other)
        return similarity.ratio()

    return max(same_end or names, key=ratio, default="")


def cast(value: Any, default: Any) -> Any:
    """The value, or the value a text spells, as the type of the default; \\n spells a line break.

    Elements of a tuple take the type of the default's first element, or of its element at the same
    place where the default mixes types, in which a name may stand for a number. A default of None
    takes any literal; an empty tuple takes any elements, and of those between commas only numbers
    and quoted texts are read: true, false and none may be labels. Raises ValueError.
    """
    if isinstance(value, str):
        value = _read(value, default)
    if isinstance(value, tuple | list) and isinstance(default, tuple | list):
        mixed = len({type(element) for element in default}) > 1
        types = default if mixed else [*default, None][:1] * len(value)
        texts = not default or mixed and any(isinstance(element, str) for element in default)
        return type(default)(
            v if texts and isinstance(v, str) else cast(v, d)
            for v, d in zip(value, types, strict=True)
        )
    if type(default) is float and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{value!r} is not of type {type(default).__name__}")
    return value


def _read(text: str, default: Any) -> Any:
    """The value that a text spells where `default` stands; ValueError if it spells none."""
    if isinstance(default, str):
        return text.replace("\\n", "\n")  # a shell passes it on as two characters
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, int | float):
        return type(default)(text)
    if isinstance(default, tuple | list) and not text.startswith(("(", "[")):
        items = [item.strip() for item in text.removesuffix(",").split(",")] if text else []
        return items if default else [_element(item) for item in items]
    return _literal({"true": "True", "false": "False", "none": "None"}.get(text, text))


def _element(text: str) -> Any:
    """The number or the quoted text that a text spells, or the text itself."""
    value = _literal(text)
    return value if type(value) in (int, float, str) else text


def _literal(text: str) -> Any:
    """The literal that a text spells, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _typed(defaults: Mapping[str, Any], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """`given` with every value cast; UserError for a name that has no default or a bad value."""
    typed = {}
    for name, value in given.items():
        if name not in defaults:
            raise UserError(_unknown(name, list(defaults), prefix))
        try:
            typed[name] = cast(value, defaults[name])
        except ValueError as error:
            like = f"{prefix}{name}={value}: write a value like its default {defaults[name]!r}"
            raise UserError(f"{like} ({error})") from error
    return typed


def _unknown(name: str, names: list[str], prefix: str) -> str:
    members = [f"{prefix}{other}" for other in names if other.startswith(f"{name}.")]
    if members:
        return f"{prefix}{name} is a group of fields; set one of {', '.join(members)}"
    near = f"the nearest is {prefix}{nearest(name, names)}" if names else "there are none"
    return f"{prefix}{name} does not exist; {near}"


def _pairs(arguments: str) -> dict[str, str]:
    pairs = [piece.partition("=") for piece in re.split(r",(?=\w+=)", arguments) if piece]
    for key, equals, _ in pairs:
        if not equals:
            raise UserError(f"argument {key!r} of --config has no value; write {key}=VALUE")
    keys = [key for key, _, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"argument {key!r} of --config is given twice; give it once")
    return {key: value for key, _, value in pairs}


def _import(file: str) -> ModuleType:
    path = next((p for p in (Path(file), ROOT / file) if p.is_file()), None)
    if path is None or path.suffix != ".py":
        known = [f"configs/{p.name}" for p in sorted((ROOT / "configs").glob("*.py"))]
        near = f"; the nearest is {nearest(file, known)}" if known else ""
        raise UserError(f"--config={file} is not a Python file{near}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={file} defines no get_config(); name a config file")
    return module
