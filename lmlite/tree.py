"""Partition labels: ordered (regex, label) rules over parameter paths, and the split they decide.

One label tree says what is differentiated, what the optimizer sees, what is saved, counted and
clipped. Splitting the tree, rather than masking the optimizer, is what keeps the backward pass of
frozen leaves out of the compiled program even when something reads a norm of the gradients.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from lmlite.errors import UserError

Rules = Sequence[tuple[str, str]]
FROZEN = "frozen"
HEAD = "head"  # a classification head that trains beside a method's own parameters


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to {'a/b/c': leaf}, in the tree's own order."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}/{key}" if prefix else key
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def label(tree: Mapping, rules: Rules) -> dict[str, str]:
    """{path: label}: the first rule whose regex matches the whole path decides.

    Raises UserError where a leaf matches no rule, or where a rule decides nothing (a rule that
    never fires is a misspelt path, and silently training nothing is the worst outcome).
    """
    compiled = [(re.compile(pattern), name) for pattern, name in rules]
    fired, labels = set(), {}
    for path in flatten(tree):
        found = next((i for i, (regex, _) in enumerate(compiled) if regex.fullmatch(path)), None)
        if found is None:
            raise UserError(f"parameter {path!r} matches no partition rule; end them with '.*'")
        fired.add(found)
        labels[path] = compiled[found][1]
    for i, (pattern, name) in enumerate(rules):
        if i not in fired:
            raise UserError(
                f"partition rule {pattern!r} -> {name!r} matches no parameter of this model; "
                f"paths look like {next(iter(labels), '(none)')!r}"
            )
    return labels


def split(tree: Mapping, labels: Mapping[str, str]) -> tuple[dict, dict]:
    """(trainable, frozen), two trees that share no leaf; label 'frozen' goes to the second."""
    flat = flatten(tree)
    train = {path: leaf for path, leaf in flat.items() if labels[path] != FROZEN}
    frozen = {path: leaf for path, leaf in flat.items() if labels[path] == FROZEN}
    return unflatten(train), unflatten(frozen)


def merge(*trees: Mapping) -> dict:
    """One tree of all leaves; a later tree's leaf replaces an earlier one's of the same path."""
    flat: dict = {}
    for tree in trees:
        flat.update(flatten(tree))
    return unflatten(flat)


def labels_of(tree: Mapping, labels: Mapping[str, str]) -> dict:
    """The labels in the shape of `tree`, as `optax.multi_transform` wants them."""
    return unflatten({path: labels[path] for path in flatten(tree)})


def count(tree: Any) -> int:
    """Number of scalars in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def size_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
