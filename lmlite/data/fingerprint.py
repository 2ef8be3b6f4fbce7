"""What tells the data of a run from any other: a file may change under an unchanged name."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from lmlite.data.task import Example, Task


def fingerprint(task: Task, *examples: Sequence[Example]) -> str:
    """A digest of the texts that a task makes, of how answers are judged, and of the examples."""
    said = [task.description, task.fewshot_delimiter, task.target_delimiter, task.content_free]
    said += [task.metrics, dataclasses.astuple(task.generation), task.shots, task.choose]
    shown = [[(e.id, e.prompt, e.choices, e.target, e.program) for e in some] for some in examples]
    return hashlib.sha256(json.dumps([said, shown]).encode()).hexdigest()
