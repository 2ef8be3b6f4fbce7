"""A task of lm-evaluation-harness from its YAML file.

Of its fields are read: task, include, dataset_path (json, csv, parquet, text, a folder of such
files named after their splits, or a TFDS or package source), dataset_kwargs.data_files (beside the
file, or in the working directory), output_type, the splits, description, doc_to_text,
doc_to_target, doc_to_choice, fewshot_delimiter, target_delimiter, generation_kwargs, metric_list,
the first of filter_list, and for the arm 'task-shot' num_fewshot and fewshot_config.sampler
(default or first_n). What would change prompts or scores and is not read is refused by name. The
metric acc of a loglikelihood is the measure greedy_accuracy. Of several right answers to write any
counts. Prompts, choices and answers are those that lm_eval makes.

Demonstrations are drawn from the examples that tuning learns from: training_split, or else
fewshot_config.split or fewshot_split; those of 'task-shot' from the latter where it is named and
not the test split, and first_n shows its first. Zero shots of a text to score by rolling windows
are one text, which must fit the model's context.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmlite.data.harness.answers import generation
from lmlite.data.harness.fields import Templates
from lmlite.data.harness.file import Fields, read_fields
from lmlite.data.harness.metrics import metrics
from lmlite.data.harness.rows import Numbered, rows_of
from lmlite.data.sources import Row
from lmlite.data.task import Example, Generation, Task, with_metrics
from lmlite.errors import UserError

SAMPLERS = {"default": "random", "first_n": "first"}
OUTPUTS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")


def load_yaml_task(
    path: str, fractions: Sequence[tuple[str, Any]], names: Sequence[str] = ()
) -> Task:
    """The task of the YAML file at `path`.

    fractions: of train, dev and test, for splits that the file does not name; see `rows_of`.
    names: of measures to take in place of the file's.
    UserError: what the file asks for and lmlite has not, and what its rows do not fit, by field.
    """
    place = Path(path).expanduser()
    fields = read_fields(place)
    output = fields.get("output_type", "generate_until")
    if output not in OUTPUTS:
        raise UserError(f"{path}: output_type={output!r} is not supported; known: {OUTPUTS}")
    rows = rows_of(fields, place, fractions)
    templates = Templates(fields, place)
    splits = {split: _examples(templates, output, own) for split, own in rows.items()}
    _check(place, splits)
    prompted = output != "loglikelihood_rolling"
    template = _template(fields, rows["test"][0][1]) if prompted else ""
    task = Task(
        name=fields.get("task", place.stem),
        choices=_shared(splits),
        **splits,
        fewshot_delimiter=fields.get("fewshot_delimiter", "\n\n"),
        target_delimiter=fields.get("target_delimiter", " ") if prompted else "",
        answers_delimited=output == "loglikelihood",
        description=_description(templates, rows),
        **_demonstrations(fields, place),
        frame=Frame(template) if prompted else str,
        premise=_premise(template) if prompted else "",
        generation=generation(fields, place) if output == "generate_until" else Generation(),
    )
    if not names:
        names = metrics(fields, task.kind, place)
        _check_several(place, task, names)
    return with_metrics(task, names)


@dataclasses.dataclass(frozen=True)
class Frame:
    """The prompt with one text for every column."""

    template: str

    def __call__(self, text: str) -> str:
        bare = re.sub(r"\{%.*?%\}", "", self.template, flags=re.DOTALL)
        return re.sub(r"\{\{.*?\}\}", lambda _: text, bare, flags=re.DOTALL)


def _examples(templates: Templates, output: str, rows: Numbered) -> tuple[Example, ...]:
    return tuple(_example(templates, output, name, row) for name, row in rows)


def _example(templates: Templates, output: str, name: str, row: Row) -> Example:
    prompt = "" if output == "loglikelihood_rolling" else templates.text("doc_to_text", row)
    if output != "multiple_choice":
        answer, *further = templates.answers(row)
        written = output == "generate_until"
        if not written and (further or not answer):
            said = "several texts" if further else "empty"
            raise UserError(
                f"{templates.path}: doc_to_target of {name} is {said}, and one is to be scored; "
                "leave the row out"
            )
        return Example(name, prompt, (), answer, name, further=tuple(further))
    choices = templates.choices(row)
    return Example(name, prompt, choices, templates.index(row, choices), name)


def _shared(splits: dict[str, tuple[Example, ...]]) -> tuple[str, ...]:
    """The choices of every item, () where they differ."""
    known = {example.choices for examples in splits.values() for example in examples}
    return known.pop() if len(known) == 1 else ()


def _check(path: Path, splits: dict[str, tuple[Example, ...]]) -> None:
    """What only the whole data show: splits that are filled, and labels that can be learnt."""
    for split in ("train", "test"):
        if not splits[split]:
            raise UserError(f"{path}: the {split} split is empty; name another, or add rows")
    if choices := _shared(splits):
        seen = {example.target for example in splits["train"]}
        for example in splits["test"]:
            if example.target not in seen:
                raise UserError(
                    f"{path}: the answer {choices[example.target]!r} of {example.id} is in no row "
                    "of the train split; add some, or name other splits"
                )


def _check_several(path: Path, task: Task, names: Sequence[str]) -> None:
    """Refuses metrics that lm_eval makes 0 or 1 where a row has several right answers."""
    others = [name for name in names if name != "exact_match"]
    if others and any(example.further for example in task.test):
        raise UserError(
            f"{path}: metric_list: {others[0]!r} of rows with several right answers is 1 in "
            "lm_eval where any score is above 0; to have the best of their scores set task.metrics"
        )


def _demonstrations(fields: Fields, path: Path) -> dict[str, Any]:
    """How many the file asks for, and how they are chosen."""
    shots = fields.get("num_fewshot", 0)
    if not isinstance(shots, int) or shots < 0:
        raise UserError(f"{path}: num_fewshot={shots!r} is no number of demonstrations")
    sampler = fields.get("fewshot_config", {}).get("sampler", "default")
    if sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise UserError(f"{path}: fewshot_config.sampler={sampler!r} is unknown; known: {known}")
    return dict(shots=shots, choose=SAMPLERS[sampler])


def _description(templates: Templates, rows: dict[str, Numbered]) -> str:
    if "description" not in templates.fields:
        return ""
    found = {templates.text("description", row) for own in rows.values() for _, row in own}
    if len(found) > 1:
        raise UserError(f"{templates.path}: description differs from row to row; move it into text")
    return found.pop()


def _template(fields: Fields, row: Row) -> str:
    """doc_to_text as a template, where it is a column's name too."""
    return "{{text}}" if fields["doc_to_text"] in row else fields["doc_to_text"]


def _premise(template: str) -> str:
    """The fixed text after the last column."""
    return re.split(r"\}\}|%\}", template)[-1]
