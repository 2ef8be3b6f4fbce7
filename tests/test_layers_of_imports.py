"""Imports follow the arrows of the design: a layer knows only the layers before it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from lmlite.config import ROOT

# Files and folders of lmlite/; each may import itself and what stands above it.
LAYERS = (
    "errors",
    "config",
    "ranges",
    "record",
    "workdir",
    "tree",
    "stacking",
    "flops",
    "runtime",
    "answers",
    "metrics",
    "data",
    "models",
    "adapt",
    "peft",
    "decode",
    "compress",
    "icl",
    "optim",
    "losses",
    "checkpoint",
    "loop",
    "states",
    "step",
    "run",
    "train",
    "joint_score",
    "joint",
    "arms",
    "evaluate",
    "report",
    "pretrain",
    "jobs",
    "compare",
    "folds",
    "study",
    "survey",
    "benchmark",
    "export",
    "harness",
    "__init__",
    "entry",
)
CONFIGS_MAY_IMPORT = {"configs", "ml_collections"} | sys.stdlib_module_names


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, inside functions too; `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: -node.level] if node.level else ()
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}" for name in node.names)


def layer(name: str) -> int:
    """The place of a dotted name under lmlite; what is not a file or folder is lmlite's own."""
    part = (name.split(".") + ["__init__"])[1]
    inside = ROOT / "lmlite" / part
    known = inside.is_dir() or inside.with_suffix(".py").is_file()
    return LAYERS.index(part if known else "__init__")


def test_every_file_has_a_layer():
    for path in (ROOT / "lmlite").glob("*"):
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))):
            assert path.stem in LAYERS, f"give {path.name} a place in LAYERS"


# `LM.generate` is a method that generation, which is made of models, stands behind: it imports it
# when called.
METHODS_BEHIND = {("lmlite/models/lm.py", "lmlite.decode.generate")}


def test_layers_import_only_what_is_below_them():
    for path in (ROOT / "lmlite").rglob("*.py"):
        own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imports(path):
            where = path.relative_to(ROOT).as_posix()
            if name.split(".")[0] == "lmlite" and (where, name) not in METHODS_BEHIND:
                assert layer(name) <= own, f"{path.relative_to(ROOT)} imports {name}"


def test_configs_know_only_ml_collections():
    for path in (ROOT / "configs").rglob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] in CONFIGS_MAY_IMPORT, f"{path.name} imports {name}"


def test_nothing_in_lmlite_knows_configs_or_experiments():
    for path in (ROOT / "lmlite").rglob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in ("configs", "experiments", "tests"), path
