"""Several tasks as one table: a task a line, an arm a column, and which way of adapting wins."""

from collections.abc import Sequence

from lmlite.report import units
from lmlite.report.breakeven import PROMPTED
from lmlite.report.summary import Records, Summary, summarize
from lmlite.report.table import markdown

Tasks = Sequence[tuple[str, Records, Records]]  # name, lines of results and of predictions


def by_task(tasks: Tasks, model: str) -> str:
    """Markdown: every task's main metric under every arm, and the verdict."""
    found = [(name, *_shown(rows, answers)) for name, rows, answers in tasks]
    arms = _columns([arm for _, summaries, _ in found for arm in summaries])
    lines = [
        [name, _metric(own), *(_cell(own.get(arm)) for arm in arms), verdict]
        for name, own, verdict in found
    ]
    head = ("task", "metric", *arms, "better")
    return (
        f"# In-context learning or tuning, by task, with {model}\n\n"
        f"{markdown(head, lines, [False, False, *[True] * len(arms), False])}\n\n"
        "Means over draws of demonstrations or seeds, with the standard deviation over them. A "
        "column +calibrated is the best calibrated reading of the test items themselves, so a "
        "little too good. better: the family whose best arm beats the best of the other by more "
        f"than chance among these items; '=' where it is not told apart, '{units.MISSING}' where "
        "nothing was tested. ↓: less is better.\n"
    )


def _columns(arms: Sequence[str]) -> list[str]:
    """Each arm once, in the order of their first tasks, and its calibrated reading after it."""
    known = list(dict.fromkeys(arms))
    plain = list(dict.fromkeys(arm.partition("+")[0] for arm in known))
    return sorted(known, key=lambda arm: (plain.index(arm.partition("+")[0]), "+" in arm))


def _shown(rows: Records, answers: Records) -> tuple[dict[str, Summary], str]:
    """The summaries by column, and the verdict."""
    summaries = summarize(rows, answers)
    columns: dict[str, Summary] = {}
    for s in sorted(summaries, key=lambda s: (s.labels, s.arm)):
        plain, _, reading = s.arm.partition("+")
        name = f"{plain}+calibrated" if reading else plain
        if name not in columns or s.merit > columns[name].merit:
            columns[name] = s
    return columns, _verdict(rows, answers, summaries)


def _verdict(rows: Records, answers: Records, summaries: Sequence[Summary]) -> str:
    """Which family wins: by the paired difference of the best arm of each."""
    best = {s.family.startswith(PROMPTED): s.arm for s in reversed(summaries)}
    if len(best) < 2:
        return units.MISSING
    both = [row for row in rows if row["arm"] in best.values()]
    first, second = summarize(both, [a for a in answers if a["arm"] in best.values()])
    if not second.tested:
        return units.MISSING
    if second.near_best:
        return "="
    return "in context" if first.family.startswith(PROMPTED) else "tuning"


def _metric(columns: dict[str, Summary]) -> str:
    s = next(iter(columns.values()), None)
    if s is None:
        return units.MISSING
    percent = " %" if s.measure.unit == "percent" else ""
    return f"{s.metric}{percent}{' ↓' if s.measure.lower else ''}"


def _cell(s: Summary | None) -> str:
    if s is None:
        return units.MISSING
    unit = s.measure.unit
    spread = f" ± {units.value(s.spread, unit)}" if s.seeds > 1 else ""
    return f"{units.value(s.quality.value, unit)}{spread}"
