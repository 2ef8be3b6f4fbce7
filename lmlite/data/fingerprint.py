"""What tells the data and the model of a run from any others: files change under their names."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lmlite import tree
from lmlite.data.task import Example, Task

_FIRST = 1000  # training examples, for what takes the first or their words
_SHOWN = 256  # numbers of each array of weights


def fingerprint(task: Task, params: Any, *examples: Sequence[Example]) -> str:
    """A digest of the texts that a task makes, of how answers are judged, of the examples, and of
    the model's weights (their shapes and first numbers, which tuning and training change).
    """
    said = [task.description, task.fewshot_delimiter, task.target_delimiter, task.content_free]
    said += [task.metrics, dataclasses.astuple(task.generation), task.shots, task.choose]
    seen = (*examples, task.train[:_FIRST], task.shown[:_FIRST])
    shown = [[dataclasses.astuple(example) for example in some] for some in seen]
    digest = hashlib.sha256(json.dumps([said, shown]).encode())
    leaves = ((p, leaf) for p, one in tree.flatten(params).items() for leaf in jax.tree.leaves(one))
    for path, leaf in leaves:
        part = leaf[:1] if leaf.ndim > 1 else leaf  # not all of it comes from the device
        first = np.asarray(part).reshape(-1)[:_SHOWN]
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode() + first.tobytes())
    return digest.hexdigest()
