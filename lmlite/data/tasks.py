"""A task: prompts, the choices or text that should follow, and which split each item is in."""

import dataclasses
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmlite.config import nearest
from lmlite.data.sources import Row, read
from lmlite.data.splits import position, split_of
from lmlite.errors import UserError
from lmlite.metrics.measures import Choices, Likelihoods, Texts, named

_DEFAULT_METRICS = {Choices: "accuracy", Texts: "chrf", Likelihoods: "bits_per_byte"}
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Generation:
    """How answers are written: see `lmlite.decode.generate`.

    samples: texts an item. extract: a regex whose first group, in its last match, is the answer.
    ignore: regexes of what is left out of it, and of the right one, before they are compared;
    ignore_case: whether they are compared in lower case.
    """

    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    samples: int = 1
    extract: str = ""
    ignore: tuple[str, ...] = ()
    ignore_case: bool = False


@dataclass(frozen=True)
class Example:
    """One item. The model sees `prompt`, then the task's target delimiter, then an answer.

    choices: the texts to choose among, () where the answer is generated. target: the index of the
    right choice, or the text to generate. Items of one group are never in two splits. program: of
    a task of code, what runs the tests once the answer stands before it.
    """

    id: str
    prompt: str
    choices: tuple[str, ...]
    target: int | str
    group: str
    program: str = ""

    @property
    def answer(self) -> str:
        """The text of the right answer."""
        return self.choices[self.target] if self.choices else self.target


@dataclass(frozen=True)
class Task:
    """Items by split. choices: those of every item, () where items have their own or none.

    frame: the prompt with every column filled in with one text. premise: what of the prompt stands
    after its last column. metrics: names of measures, the main one first. chat: prompts are
    messages of the model's chat template. generation: of answers that are written, not scored.
    answers_delimited: whether answers bring what stands before them, so that the target delimiter
    is for demonstrations alone.
    """

    name: str
    choices: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    fewshot_delimiter: str = "\n\n"
    target_delimiter: str = " "
    answers_delimited: bool = False
    description: str = ""
    frame: Callable[[str], str] = str
    premise: str = ""
    metrics: tuple[str, ...] = ("accuracy",)
    chat: bool = False
    generation: Generation = Generation()
    run_code: bool = False

    @property
    def content_free(self) -> tuple[str, ...]:
        """Prompts that say nothing, for contextual calibration (Zhao et al. 2021, section 5)."""
        return tuple(self.frame(text) for text in CONTENT_FREE)

    @property
    def kind(self) -> type:
        """What answers are: `Choices`, `Texts` written, or `Likelihoods` of given ones."""
        if self.train[0].choices:
            return Choices
        return Texts if self.generation.max_new_tokens else Likelihoods


CONTENT_FREE = ("N/A", "[MASK]", "")


def load_task(config: Any) -> Task:
    """The task that a config describes. These fields of it are read:

    source          where the rows are, see `lmlite.data.sources`; may hold '{split}'
    template        the prompt, a str.format string over the columns
    label           the column of the answer
    labels          its values, in the order of the choices. () if the column holds the choice's
                    number, from 0, or, where there are no choices, the text to generate
    ignore_labels   values whose rows are left out
    choices         the text of each label, equal for all rows
    choices_columns columns that hold each row's own choices, instead of `choices`
    group           column whose rows stay together in one split; '' for each row on its own
    id              column that names a row; '' for its number in the source, from 0
    limit           at most so many rows (of each source split), picked by hash; 0 for all
    split           pairs of train, dev or test with a fraction of the groups, summing to 1; or
                    with the name that stands for '{split}' in `source`
    chunk           characters; longer answers are cut at line breaks into rows of about so many
    metrics         names of `lmlite.metrics.measures`; () for the usual one of such a task
    generation      the fields of `Generation`
    tests, entry_point, run_code    the columns of a program's tests and of the function they call,
                    and whether written programs may be run
    fewshot_delimiter, target_delimiter, description, chat    as in `Task`

    UserError: what the fields and the data disagree on: a missing column, a label that is not in
    the list, an id given twice, a group in two splits, an empty split, training data of one class,
    a label that is in the test split alone.

    A source 'yaml:PATH' is a task of lm-evaluation-harness, which says all but chat, the fractions
    of `split` and, where they are given, `metrics` itself: see `lmlite.data.harness.task`.
    """
    if config.source.startswith("yaml:"):
        from lmlite.data.harness import load_yaml_task  # which makes a Task

        task = load_yaml_task(config.source.removeprefix("yaml:"), config.split)
        task = dataclasses.replace(task, chat=config.chat)
        return with_metrics(task, config.metrics or task.metrics)
    named = _splits(config)
    _check_choices(config)
    if isinstance(named["train"], str):
        splits = {
            split: _examples(config, config.source.replace("{split}", name))
            for split, name in named.items()
        }
    else:
        splits = {split: [] for split in SPLITS}
        for example in _examples(config, config.source):
            splits[split_of(example.group, config.split)].append(example)
    _check(config, splits)
    task = Task(
        name=config.source,
        choices=tuple(config.choices),
        **{split: tuple(examples) for split, examples in splits.items()},
        fewshot_delimiter=config.fewshot_delimiter,
        target_delimiter=config.target_delimiter,
        description=config.description,
        frame=partial(_framed, config.template),
        premise=_premise(config.template),
        chat=config.chat,
        generation=Generation(**dict(config.generation)),
        run_code=config.run_code,
    )
    return with_metrics(task, config.metrics)


def with_metrics(task: Task, names: Sequence[str]) -> Task:
    """The task with its measures; () for the usual one. UserError for one that does not suit it."""
    names = tuple(names) or (_DEFAULT_METRICS[task.kind],)
    named(names, task.kind)
    if any(name.startswith("pass@") for name in names) and not task.run_code:
        raise UserError(
            "task.metrics asks whether written programs pass their tests, which runs them on this "
            "machine; set task.run_code=true to allow it"
        )
    return dataclasses.replace(task, metrics=names)


def _splits(config: Any) -> dict[str, float | str]:
    """task.split as a dict, which is complete, of one kind, and fits the source."""
    named = dict(config.split)
    if sorted(named) != sorted(SPLITS) or len(config.split) != len(SPLITS):
        raise UserError(
            f"task.split names {', '.join(named) or 'nothing'}; it must give each of "
            f"{', '.join(SPLITS)} a fraction of the rows, or a split of the source"
        )
    by_name = {isinstance(value, str) for value in named.values()}
    if by_name == {True} and "{split}" in config.source:
        return named
    if by_name == {False} and "{split}" not in config.source:
        if min(named.values()) > 0 and abs(sum(named.values()) - 1) < 1e-6:
            return named
        raise UserError(f"task.split={config.split} must be positive fractions that sum to 1")
    raise UserError(
        f"task.split={config.split} does not fit task.source={config.source!r}: names of splits go "
        "with a '{split}' in the source, fractions with a source without it"
    )


def _check_choices(config: Any) -> None:
    if config.choices and config.choices_columns:
        raise UserError("task.choices and task.choices_columns are both given; set one to ()")
    choices = tuple(config.choices_columns or config.choices)
    repeated = len(set(choices)) < len(choices)
    if repeated or (config.labels and len(choices) != len(config.labels)):
        field = "choices_columns" if config.choices_columns else "choices"
        raise UserError(
            f"task.{field}={choices} must be as many as task.labels={tuple(config.labels)}, and "
            "all different"
        )


def _examples(config: Any, source: str) -> list[Example]:
    """The examples of one source, at most `config.limit` of them."""
    rows = read(source)
    ids = [str(_column(r, config.id, "id")) if config.id else str(i) for i, r in enumerate(rows)]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise UserError(f"task.id={config.id!r}: {count} rows of {source} share the id {name!r}")
    pairs = zip(ids, rows, strict=True)
    kept = [(name, row) for name, row in pairs if not _ignored(config, row)]
    if config.limit:
        kept.sort(key=lambda item: position("limit", 0, item[0]))
        kept = kept[: config.limit]
    examples = [_example(config, name, row) for name, row in kept]
    if not config.chunk:
        return examples
    return [part for example in examples for part in _chunks(example, config.chunk)]


def _chunks(example: Example, size: int) -> Iterator[Example]:
    """The example with its answer cut at line breaks into parts of at least `size` characters."""
    parts, text = [], ""
    for line in str(example.target).splitlines(keepends=True):
        text += line
        if len(text) >= size:
            parts.append(text)
            text = ""
    for i, part in enumerate([*parts, *([text] if text.strip() else [])]):
        yield dataclasses.replace(example, id=f"{example.id}-{i}", target=part)


def _ignored(config: Any, row: Row) -> bool:
    return str(_column(row, config.label, "label")) in map(str, config.ignore_labels)


def _example(config: Any, name: str, row: Row) -> Example:
    choices = tuple(config.choices)
    if config.choices_columns:
        choices = tuple(str(_column(row, c, "choices_columns")) for c in config.choices_columns)
    return Example(
        id=name,
        prompt=_render(config.template, row),
        choices=choices,
        target=_target(config, name, row, len(choices)),
        group=str(_column(row, config.group, "group")) if config.group else name,
        program=_program(config, row) if config.tests else "",
    )


def _program(config: Any, row: Row) -> str:
    tests, function = _column(row, config.tests, "tests"), _column(row, config.entry_point, "tests")
    return f"\n\n{tests}\n\ncheck({function})\n"


def _render(template: str, row: Row) -> str:
    try:
        for _, field, _, _ in string.Formatter().parse(template):
            if field is not None:
                _column(row, re.split(r"[.\[]", field)[0], "template")
        return template.format(**row)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"task.template={template!r} cannot be filled in: {error}") from error


def _framed(template: str, text: str) -> str:
    parts = string.Formatter().parse(template)
    return "".join(fixed + ("" if field is None else text) for fixed, field, _, _ in parts)


def _premise(template: str) -> str:
    """The fixed text after the last column."""
    *_, (fixed, field, _, _) = [("", None, "", ""), *string.Formatter().parse(template)]
    return fixed if field is None else ""


def _target(config: Any, name: str, row: Row, choices: int) -> int | str:
    """The index of the row's label, or its text where the task lists neither labels nor choices."""
    value = str(_column(row, config.label, "label"))
    labels = [str(label) for label in config.labels]
    if labels:
        if value not in labels:
            raise UserError(
                f"label {value!r} of row {name} (column {config.label!r}) is not in task.labels: "
                f"{', '.join(labels)}; add it, or list it in task.ignore_labels"
            )
        return labels.index(value)
    if not choices:
        return value
    if not value.isdecimal() or int(value) >= choices:
        raise UserError(
            f"label {value!r} of row {name} (column {config.label!r}) is no position of a choice, "
            f"0 to {choices - 1}; list its values in task.labels"
        )
    return int(value)


def _column(row: Row, column: str, field: str) -> Any:
    if column not in row:
        near = nearest(column, row)
        raise UserError(
            f"task.{field}: there is no column {column!r}; the nearest is {near!r} "
            f"of {', '.join(map(str, row))}"
        )
    return row[column]


def _check(config: Any, splits: dict[str, list[Example]]) -> None:
    """What only the whole data show: splits that are filled, apart, and can be learnt from."""
    for split, examples in splits.items():
        if not examples:
            raise UserError(
                f"the {split} split of {config.source} is empty; change task.split or add rows"
            )
    split_of_group = {}
    for split, examples in splits.items() if config.group else ():
        for group in {example.group for example in examples}:
            if (other := split_of_group.setdefault(group, split)) != split:
                raise UserError(
                    f"task.group={config.group!r}: {group!r} is in both {other} and {split} of "
                    f"{config.source}; use other splits, or set task.group='' to accept it"
                )
    if len({example.target for example in splits["train"]}) == 1:
        target = config.labels[splits["train"][0].target] if config.labels else "the same answer"
        raise UserError(
            f"all {len(splits['train'])} training rows of {config.source} are {target!r}; "
            "training needs at least two classes"
        )
    if config.choices:
        _check_labels(config, splits)


def _check_labels(config: Any, splits: dict[str, list[Example]]) -> None:
    """No label may be asked for that no training row shows: neither a head nor demonstrations
    could know it.
    """
    asked = Counter(example.target for example in splits["test"])
    unseen = sorted(asked.keys() - {example.target for example in splits["train"]})
    if unseen:
        names = [str((config.labels or config.choices)[target]) for target in unseen]
        raise UserError(
            f"label {names[0]!r} ({len(unseen)} such) is in {asked[unseen[0]]} test rows of "
            f"{config.source} and in no training row; list it in task.ignore_labels, or change "
            "task.split, or raise task.limit"
        )
