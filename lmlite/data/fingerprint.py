"""What tells the data of a run from any other: a file may change under an unchanged name."""

import hashlib
import json
from collections.abc import Sequence

from lmlite.data.task import Example, Task


def fingerprint(task: Task, *examples: Sequence[Example]) -> str:
    """A digest of the texts that a task makes and of the examples, as they are asked and shown."""
    said = [task.description, task.fewshot_delimiter, task.target_delimiter, task.content_free]
    shown = [[(e.id, e.prompt, e.choices, e.target) for e in some] for some in examples]
    return hashlib.sha256(json.dumps([said, shown]).encode()).hexdigest()
