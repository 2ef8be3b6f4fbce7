"""A task from its config: its prompts, what should follow them, and the split of each."""

import dataclasses
import string
from collections import Counter
from functools import partial
from typing import Any

from lmlite.data.examples import examples_of, fixed_choices
from lmlite.data.harness import load_yaml_task
from lmlite.data.splits import split_of
from lmlite.data.task import Example, Generation, Task, with_metrics
from lmlite.errors import UserError

SPLITS = ("train", "dev", "test")
_FILE_SAYS = (
    "template", "label", "labels", "ignore_labels", "choices", "choices_columns", "group", "id",
    "limit", "chunk", "description", "tests", "entry_point", "run_code",
)  # fmt: skip


def load_task(config: Any) -> Task:
    """The task that a config describes. These fields of it are read:

    source          where the rows are, see `lmlite.data.sources`; may hold '{split}'
    template        the prompt, a str.format string over the columns
    label           the column of the answer, or the place in one: 'answers[text]'
    labels          its values, in the order of the choices. () if the column holds the choice's
                    number, from 0, or, where there are no choices, the text to generate (of a
                    list all are right, and the first is learnt)
    ignore_labels   values whose rows are left out
    choices         the text of each label, equal for all rows; () for the labels themselves
    choices_columns columns that hold each row's own choices, instead of `choices`
    group           column whose rows stay together in one split; '' for each row on its own
    id              column that names a row; '' for its number in the source, from 0
    limit           at most so many rows (of each source split), picked by hash; 0 for all
    split           pairs of train, test and, if it is wanted, dev with a fraction of the groups,
                    summing to 1; or with the name that stands for '{split}' in `source`
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
        _check_unread(config)
        path = config.source.removeprefix("yaml:")
        task = load_yaml_task(path, config.split, config.metrics)
        return dataclasses.replace(task, chat=config.chat)
    named = _splits(config)
    _check_choices(config)
    if isinstance(named["train"], str):
        own = {
            split: examples_of(config, config.source.replace("{split}", name))
            for split, name in named.items()
        }
        splits = {split: own.get(split, []) for split in SPLITS}
    else:
        splits = {split: [] for split in SPLITS}
        for example in examples_of(config, config.source):
            splits[split_of(example.group, config.split)].append(example)
    _check(config, splits)
    task = Task(
        name=config.source,
        choices=fixed_choices(config),
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


def _check_unread(config: Any) -> None:
    """Of a task file: refuses what the config sets and the file alone says."""
    kept = {name: type(config[name])() for name in _FILE_SAYS}
    kept |= {name: getattr(Task, name) for name in ("fewshot_delimiter", "target_delimiter")}
    found = {name: config[name] for name in kept}
    for name in (
        "max_new_tokens",
        "stop",
        "temperature",
        "samples",
        "extract",
        "ignore",
        "ignore_case",
    ):
        kept[f"generation.{name}"] = getattr(Generation, name)
        found[f"generation.{name}"] = config.generation[name]
    for name, value in found.items():
        if value != kept[name]:
            raise UserError(
                f"task.{name}={value!r} does nothing for {config.source}: a task file says it "
                "itself; set it there"
            )


def _splits(config: Any) -> dict[str, float | str]:
    """task.split as a dict, which is complete, of one kind, and fits the source."""
    named = dict(config.split)
    if {*named, "dev"} != {*SPLITS} or len(config.split) != len(named):
        raise UserError(
            f"task.split names {', '.join(named) or 'nothing'}; it must give train and test, and "
            "may give dev, a fraction of the rows each, or a split of the source"
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
    choices = tuple(map(str, config.choices_columns)) or fixed_choices(config)
    if empty := [i for i, choice in enumerate(fixed_choices(config)) if not choice.strip()]:
        raise UserError(f"task.choices={choices}: number {empty[0]} has no text; name it")
    repeated = len(set(choices)) < len(choices)
    if repeated or (config.labels and len(choices) != len(config.labels)):
        field = "choices_columns" if config.choices_columns else "choices"
        raise UserError(
            f"task.{field}={choices} must be as many as task.labels={tuple(config.labels)}, and "
            "all different"
        )


def _framed(template: str, text: str) -> str:
    parts = string.Formatter().parse(template)
    return "".join(fixed + ("" if field is None else text) for fixed, field, _, _ in parts)


def _premise(template: str) -> str:
    """The fixed text after the last column."""
    *_, (fixed, field, _, _) = [("", None, "", ""), *string.Formatter().parse(template)]
    return fixed if field is None else ""


def _check(config: Any, splits: dict[str, list[Example]]) -> None:
    """What only the whole data show: splits that are filled, apart, and can be learnt from."""
    for split in ("train", "test"):
        if not splits[split]:
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
    if fixed_choices(config):
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
