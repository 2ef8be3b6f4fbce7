"""What a prompted arm's spread comes from: which demonstrations are shown, or their order."""

from collections.abc import Sequence

import numpy as np

from lmlite.report import units
from lmlite.report.summary import SPLIT, Records, Summary, main_metric
from lmlite.report.table import markdown


def components(table: np.ndarray) -> tuple[float, float]:
    """(variance due to the draw, to the order within a draw) of values [draws, orders].

    Random effects, estimated from mean squares (one-way analysis of variance; R. A. Fisher 1925);
    a negative estimate is 0.
    """
    draws, orders = table.shape
    within = float(np.mean(np.var(table, axis=1, ddof=1)))
    between = float(np.var(table.mean(axis=1), ddof=1)) if draws > 1 else 0.0
    return max(0.0, between - within / orders), within


def variance_table(summaries: Sequence[Summary], rows: Records) -> str:
    """Markdown for the arms that were run with several orders of a draw; empty for none."""
    lines = []
    for s in summaries:
        own = [row for row in rows if row["arm"] == s.arm and row["split"] == SPLIT]
        table = _table([row for row in own if row["metric"] == main_metric(rows)])
        if table is not None:
            found = components(table)
            share = [units.percent(part / max(sum(found), 1e-12)) for part in found]
            sds = [units.value(part**0.5, s.measure.unit) for part in found]
            lines.append([s.arm, f"{table.shape[0]} x {table.shape[1]}", *sds, *share])
    head = ("arm", "draws x orders", "sd of draws", "sd of orders", "draws %", "orders %")
    return markdown(head, lines, [False, *[True] * 5]) if lines else ""


def _table(rows: Sequence[dict]) -> np.ndarray | None:
    """Values [draws, orders]; None where each draw has not the same orders, two or more."""
    by_draw: dict[int, dict[int, float]] = {}
    for row in rows:
        if "order" in row and row["value"] is not None:
            by_draw.setdefault(row["draw"], {})[row["order"]] = row["value"]
    orders = {tuple(sorted(one)) for one in by_draw.values()}
    if len(orders) != 1 or len(next(iter(orders))) < 2:
        return None
    return np.array([[one[o] for o in sorted(one)] for _, one in sorted(by_draw.items())])
