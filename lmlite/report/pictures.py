"""Quality against cost, as a picture."""

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lmlite.report import units
from lmlite.report.labels import place
from lmlite.report.summary import Summary

# Okabe & Ito, Color Universal Design, 2008: told apart with every kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_FRONTIER = dict(color="#888888", lw=1, ls="--")
_INTERVAL = dict(alpha=0.25, lw=1.6)
_DOT = dict(marker="o", ls="", ms=6.5, mew=1.4)
_MARGINS = (0.08, 0.24)  # of the width between the dots; names stand on their right


class Cost(NamedTuple):
    """What the horizontal axis of a panel shows."""

    title: str
    axis: str
    of: Callable[[Summary], float]


FIT = Cost("Cost of fitting, once", "seconds to fit (log scale)", lambda s: s.fit_seconds)
QUERY = Cost(
    "Cost of each query",
    "floating-point operations a query (log scale)",
    lambda s: s.query_flops,
)


def quality_cost(summaries: Sequence[Summary], title: str) -> bytes:
    """A PNG: quality against the cost to fit, and against the cost of a query.

    An arm is left out of a panel whose cost it lacks.
    """
    figure = Figure(figsize=(10, 6), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    families = sorted({s.family for s in summaries})
    colours = {family: _COLOURS[i % len(_COLOURS)] for i, family in enumerate(families)}
    panels = [
        (ax, cost, [s for s in summaries if not math.isnan(cost.of(s))])
        for ax, cost in zip(axes, (FIT, QUERY), strict=True)
    ]
    for ax, cost, shown in panels:
        _panel(ax, cost, shown, colours)
    measure = summaries[0].measure
    axes[0].set_ylabel(f"{summaries[0].metric} on the test items")
    if measure.unit == "percent":
        axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if measure.lower:
        axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=12, fontweight="bold")
    place_of_key = dict(loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    figure.legend(handles=_key(colours, summaries[0].tested), **place_of_key)
    canvas.draw()  # settles the layout, on which the places of the names depend
    for ax, cost, shown in panels:
        names = [(s.arm, colours[s.family]) for s in shown]
        place(ax, _positions(cost, shown), [s.quality.value for s in shown], names)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def frontier(costs: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indices of the points that none equals or beats at the same cost or less, by rising cost."""
    best, kept = -math.inf, []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -quality[i])):
        if quality[i] > best:
            best = quality[i]
            kept.append(i)
    return kept


def _panel(ax: Axes, cost: Cost, shown: Sequence[Summary], colours: dict[str, str]) -> None:
    ax.set(title=cost.title, xlabel=cost.axis)
    ax.grid(axis="y", color="#eeeeee")
    ax.spines[["top", "right"]].set_visible(False)
    if not shown:
        ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center")
        ax.set_xticks([])
        return
    x = _positions(cost, shown)
    _costs_axis(ax, cost, shown, x)
    _frontier(ax, x, np.array([s.merit for s in shown]), shown[0].measure.lower)
    for at, s in zip(x, shown, strict=True):
        colour = colours[s.family]
        fill = "white" if s.tested and not s.near_best else colour
        ax.plot([at, at], s.quality[1:], color=colour, **_INTERVAL)
        ax.plot(at, s.quality.value, color=colour, mfc=fill, zorder=4, **_DOT)


def _frontier(ax: Axes, x: np.ndarray, merit: np.ndarray, lower: bool) -> None:
    steps = frontier(x, merit)
    y = -merit if lower else merit
    right = ax.get_xlim()[1]
    ax.step([*x[steps], right], [*y[steps], y[steps[-1]]], where="post", zorder=1, **_FRONTIER)


def _positions(cost: Cost, shown: Sequence[Summary]) -> np.ndarray:
    """log10 of the cost, [A]; 'none' stands half a decade below the least cost."""
    costs = np.array([cost.of(s) for s in shown])
    none = np.min(costs, where=costs > 0, initial=np.inf) / 10**0.5
    return np.log10(np.where(costs > 0, costs, none if np.isfinite(none) else 1.0))


def _costs_axis(ax: Axes, cost: Cost, shown: Sequence[Summary], x: np.ndarray) -> None:
    free = [at for at, s in zip(x, shown, strict=True) if cost.of(s) == 0]
    low, high = x.min(), x.max()
    before, after = (margin * max(high - low, 0.3) for margin in _MARGINS)
    ax.set_xlim(low - before, high + after)
    paid = [at for at, s in zip(x, shown, strict=True) if cost.of(s) > 0]
    values = _ticks(10 ** (min(paid) - before), 10 ** (high + after)) if paid else []
    ax.set_xticks([*free[:1], *np.log10(values)])
    ax.set_xticklabels([*["none"] * bool(free), *map(units.count, values)])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high: powers of ten, or closer where they would be fewer than 3."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        found = [v for d in decades for m in digits if low <= (v := m * 10.0**d) <= high]
        if len(found) >= 3:
            return found
    return [v for v in MaxNLocator(4).tick_values(low, high) if low <= v <= high]


def _key(colours: dict[str, str], tested: bool) -> list[Line2D]:
    kinds = [Line2D([], [], color=c, label=family, **_DOT) for family, c in colours.items()]
    near = Line2D([], [], color="#555555", label="not told apart from the best", **_DOT)
    worse = Line2D([], [], color="#555555", mfc="white", label="worse than the best", **_DOT)
    bar = Line2D([], [], color="#555555", label="95 % interval over test items", **_INTERVAL)
    line = Line2D([], [], label="best at this cost or less", **_FRONTIER)
    return [*kinds, *([near, worse, bar] if tested else []), line]
