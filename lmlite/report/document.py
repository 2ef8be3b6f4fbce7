"""report.md: the comparison for a reader who did not run it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmlite.errors import UserError
from lmlite.report import prose, units
from lmlite.report.pictures import quality_cost
from lmlite.report.summary import (
    SPLIT,
    Records,
    Summary,
    failures,
    main_metric,
    summarize,
)
from lmlite.report.table import KEY, failed, markdown, markdown_table
from lmlite.report.variance import variance_table
from lmlite.workdir import write_bytes, write_text

REPORT, PICTURE = "report.md", "quality_cost.png"
MODEL = "config.model"
# What "How it was measured" tells, and where config.json has it; what it lacks is left out.
FACTS = (
    ("Model", MODEL),
    ("Data", "config.task.source"),
    ("Items", "sizes"),
    ("Answers", "config.task.choices"),
    ("Seeds", "config.seeds"),
    ("Demonstration draws", "config.draws"),
    ("Precision", "config.dtype"),
    ("Linear layers held in", "config.quantize"),
    ("Processor", "processor"),
    ("Devices", "devices"),
    ("Platform", "platform"),
    ("Date", "date"),
    ("Versions", "versions"),
    ("Commit", "commit"),
)
TEXTS = (("Prompt template", "config.task.template"), ("Command", "command"))
OTHER_COLUMNS = (
    "kind: whether the arm prompts (in-context) or tunes; calibrated is another reading of its "
    "answers. runs: how many seeds or draws were run. labels used: labelled examples that the arm "
    "saw, those that choose the epoch among them. trained params: how many numbers tuning changes. "
    "peak memory: the most held while the arm ran, on an accelerator by the process so far; arms "
    "fitted together share it."
)
COLUMNS_FROM = (
    "Times are wall-clock, without compilation: to fit, `train_seconds`; a query, `eval_seconds` "
    "over the test items. FLOPs a query are `flops_per_query`; stored bytes are what must be kept "
    "to use the arm besides the model. All settings are in `config.json`, every run is in "
    "`results.jsonl`, with the bytes that its programs read and write."
)
READINGS = "Arms named 'x+y' are another reading of the run of x and share its costs."
_LONGEST = 12  # entries of a list that are written out


def write_report(workdir: Path, rows: Records, predictions: Records, config: dict) -> None:
    """Write report.md and its picture into `workdir`, each complete or not at all.

    rows, predictions: as for `summarize`, with the UserErrors it raises; config: config.json.
    Raises UserError where `workdir` can't be written.
    """
    summaries = summarize(rows, predictions)
    subject = " with ".join([*dict.fromkeys(row["task"] for row in rows), *_model(config)])
    try:
        if summaries:
            picture = quality_cost(summaries, f"Quality against cost: {subject}")
            write_bytes(Path(workdir) / PICTURE, picture)
        write_text(Path(workdir) / REPORT, document(subject, summaries, rows, config))
    except OSError as error:
        raise UserError(
            f"workdir {workdir}: {error.strerror or error}; choose another --workdir"
        ) from error


def document(subject: str, summaries: Sequence[Summary], rows: Records, config: dict) -> str:
    """The Markdown text of the report; `subject` names the task and the model."""
    failed_runs = failures(rows)
    sections = (
        (f"# In-context learning or tuning? {subject}", prose.answer(summaries, subject)),
        ("## The arms", _arms(summaries) if summaries else ""),
        ("## Quality against cost", _picture() if summaries else ""),
        ("## When does tuning pay?", prose.break_even_table(summaries)),
        ("## Other measures", _other_metrics(summaries, rows)),
        ("## Differences from the best", _differences(summaries)),
        ("## Draws and orders of demonstrations", variance_table(summaries, rows)),
        ("## What failed", _bullets([failed(run) for run in failed_runs])),
        ("## How it was measured", _measured(rows, config)),
        ("## Caveats", _bullets(prose.caveats(summaries, failed_runs))),
    )
    return "\n\n".join(f"{head}\n\n{body}" for head, body in sections if body) + "\n"


def _arms(summaries: Sequence[Summary]) -> str:
    return f"{markdown_table(summaries)}\n\n{KEY} {OTHER_COLUMNS}"


def _picture() -> str:
    return (
        f"![Quality of each arm against its cost]({PICTURE})\n\n"
        "Up is better (where less is better, the axis is turned over), left is cheaper. Arms below "
        "the dashed line are beaten by one that costs no more on that axis."
    )


def _differences(summaries: Sequence[Summary]) -> str:
    """The paired difference of every arm from the best, with both tests."""
    if not any(s.tested for s in summaries[1:]):
        return ""
    unit = summaries[0].measure.unit
    lines = [
        [s.arm, units.estimate(s.behind, unit), units.decimal(s.p_value)] for s in summaries[1:]
    ]
    table = markdown(("arm", "difference [95 % CI]", "McNemar p"), lines, (False, True, True))
    return (
        "On the same items, by bootstrap over items; McNemar's exact test is between the first run "
        f"of each. {len(lines)} comparisons were made, none corrected for.\n\n{table}"
    )


def _other_metrics(summaries: Sequence[Summary], rows: Records) -> str:
    """Means over seeds of every further metric of the test split; empty where there is none."""
    main, values = main_metric(rows), {}
    for row in rows:
        if row["split"] == SPLIT and row["metric"] != main and row["value"] is not None:
            values.setdefault((row["arm"], row["metric"]), []).append(row["value"])
    names = list(dict.fromkeys(metric for _, metric in values))
    lines = [
        [s.arm, *(units.decimal(np.mean(values.get((s.arm, name), np.nan))) for name in names)]
        for s in summaries
    ]
    head = ("arm", *(name.replace("_", " ") for name in names))
    return markdown(head, lines, [False, *[True] * len(names)]) if names else ""


def _measured(rows: Records, config: dict) -> str:
    told = [f"{name}: {_text(value)}" for name, path in FACTS if (value := _fact(config, path))]
    if compiling := _compile_seconds(rows):
        told.append(f"Compiling, all runs together: {compiling:.0f} s (`compile_seconds`)")
    texts = [f"{name}:\n\n{_block(text)}" for name, text in _texts(config)]
    shared = any(row.get("job", row["arm"]) != row["arm"] for row in rows)
    notes = f"{COLUMNS_FROM} {READINGS}" if shared else COLUMNS_FROM
    return "\n\n".join(part for part in (_bullets(told), *texts, notes) if part)


def _texts(config: dict) -> list[tuple[str, str]]:
    """The TEXTS that config.json has; a task file's prompts are its own."""
    source = _fact(config, "config.task.source") or ""
    told = [(name, _fact(config, path)) for name, path in TEXTS]
    own = "Prompt template" if source.startswith("yaml:") else ""
    return [(name, text) for name, text in told if text and name != own]


def _compile_seconds(rows: Records) -> float:
    """Of all runs, each counted once although its readings and metrics have a row each."""
    runs = {(row.get("job", row["arm"]), row["seed"]): row for row in rows}
    return sum(row.get("compile_seconds") or 0 for row in runs.values())


def _model(config: dict) -> list[str]:
    """The model's name without where it came from, if config.json has it."""
    model = _fact(config, MODEL)
    return [Path(_text(model).split(":")[-1]).name] if model else []


def _fact(config: dict, path: str):
    """The value at a dotted path, None where there is none."""
    value = config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value) -> str:
    """A value of config.json on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        rest = [f"… ({len(value)} in all)"] if len(value) > _LONGEST else []
        return ", ".join([*map(_text, value[:_LONGEST]), *rest])
    return value if isinstance(value, str) else json.dumps(value)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _block(text: str) -> str:
    return "\n".join(["    " + line for line in str(text).splitlines()])
