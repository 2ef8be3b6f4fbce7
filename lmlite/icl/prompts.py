"""Prompts: a task's description, demonstrations with their answers, and the query, as one text."""

from collections.abc import Sequence

from lmlite.data.task import Example, Task
from lmlite.models.lm import LM


def demonstration(task: Task, example: Example) -> str:
    """An example with its answer, as it stands in a prompt."""
    return example.prompt + task.target_delimiter + example.answer + task.fewshot_delimiter


def prompt(lm: LM, task: Task, demonstrations: Sequence[Example], query: str) -> str:
    """The text that an answer to `query` follows; of a chat task as messages of both sides.

    Raises UserError for a chat task where the model has no chat template.
    """
    if not task.chat:
        return task.description + "".join(demonstration(task, e) for e in demonstrations) + query
    messages = [{"role": "system", "content": task.description}] if task.description else []
    for example in demonstrations:
        messages.append({"role": "user", "content": example.prompt})
        messages.append({"role": "assistant", "content": example.answer})
    return lm.text.chat([*messages, {"role": "user", "content": query}])


def delimiter(task: Task) -> str:
    """What stands between a prompt and its answer."""
    return "" if task.chat or task.answers_delimited else task.target_delimiter
