"""Several comparisons of the same arms as one table: an arm a line, a comparison a column."""

from collections.abc import Sequence

from lmlite.report import units
from lmlite.report.summary import Summary
from lmlite.report.table import NEAR_BEST, markdown

Points = Sequence[tuple[str, Sequence[Summary]]]


def across(points: Points, task: str, model: str) -> str:
    """Markdown: quality of every arm at every point, (its name, its summaries); best first by the
    last point with the most arms, then the arms of the other points.
    """
    most = max(len(summaries) for _, summaries in points)
    full = [summaries for _, summaries in points if len(summaries) == most][-1]
    order = dict.fromkeys(s.arm for summaries in (full, *(p for _, p in points)) for s in summaries)
    found = [{s.arm: s for s in summaries} for _, summaries in points]
    lines = [[arm, *(_cell(arms.get(arm)) for arms in found)] for arm in order]
    head = ("arm", *(name for name, _ in points))
    items = max(s.items for s in full)
    return (
        f"# {task} with {model}\n\n"
        f"{markdown(head, lines, [False, *[True] * len(points)])}\n\n"
        f"{full[0].metric} on {items} test items with its 95 % interval over items, ± the standard "
        f"deviation over seeds (their number in brackets). {NEAR_BEST}: not told apart from the "
        "best of its column by these items; a column without any is not tested.\n"
    )


def _cell(s: Summary | None) -> str:
    if s is None:
        return "–"
    near = f"{NEAR_BEST} " if s.near_best else ""
    unit = s.measure.unit
    sd = f" ± {units.value(s.spread, unit)} ({s.seeds})" if s.seeds > 1 else ""
    return f"{near}{units.estimate(s.quality, unit)}{sd}"
