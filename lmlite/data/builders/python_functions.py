"""Short functions of Python's own standard library: signature and docstring, then the body.

Made from the running Python's sources, so that other versions give other rows.
"""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lmlite.data.text_rows import TextRows

_LINES = 25  # of a function at most
_SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3"}


class Builder(TextRows):
    """`prompt` ends where the body begins; rows of one `module` stay together in a split."""

    name = "python_functions"
    columns = ("prompt", "solution", "module")
    distinct = ("prompt", "solution")

    def splits(self):
        return {"train": self._rows()}

    def _rows(self):
        root = Path(sysconfig.get_path("stdlib"))
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            if not _SKIPPED & set(name.parts):
                for prompt, solution in _functions(path):
                    yield {"prompt": prompt, "solution": solution, "module": name.as_posix()}


def _functions(path: Path) -> Iterator[tuple[str, str]]:
    """(all up to the docstring's end, the rest) of the file's top-level functions."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError):
        return  # a sample of broken code
    lines = text.splitlines(keepends=True)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not ast.get_docstring(node):
            continue
        end = node.body[0].end_lineno
        if len(node.body) > 1 and node.end_lineno - node.lineno < _LINES:
            yield "".join(lines[node.lineno - 1 : end]), "".join(lines[end : node.end_lineno])
