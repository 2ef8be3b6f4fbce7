"""The sentences of report.md, every one computed from the summaries."""

import math
from collections.abc import Sequence

from lmlite.report import units
from lmlite.report.breakeven import break_even
from lmlite.report.summary import Failure, Summary
from lmlite.report.table import markdown


def answer(summaries: Sequence[Summary], subject: str) -> str:
    """What to choose and why, a paragraph; `subject` is the task and the model, in words."""
    if not summaries:
        return f"No arm has a result on {subject}."
    labels = units.count(max(s.labels for s in summaries))
    return " ".join(
        [
            f"On {subject}, with up to {labels} labelled examples,",
            _best(summaries),
            *([_rivals(summaries)] if len(summaries) > 1 else []),
            *_without_labels(summaries),
        ]
    )


def _best(summaries: Sequence[Summary]) -> str:
    best, a = summaries[0], summaries[0].quality
    told = [f"{best.items} test items"]
    if not math.isnan(a.low):
        told.insert(0, f"95 % interval {_plain(best, a.low)} to {_plain(best, a.high)} over")
    if best.seeds > 1:
        told.append(f"with standard deviation {_plain(best, best.spread)} over {best.seeds} runs")
    rank = "is the best" if len(summaries) > 1 else "is the only arm"
    return f"**{best.arm}** {rank}: {best.metric} {_value(best, a.value)} ({' '.join(told)})."


def _value(s: Summary, x: float) -> str:
    """A number of the arms' measure with its unit."""
    return f"{_plain(s, x)} %" if s.measure.unit == "percent" else _plain(s, x)


def _plain(s: Summary, x: float) -> str:
    return units.value(x, s.measure.unit)


def _rivals(summaries: Sequence[Summary]) -> str:
    """What the tests against the best arm say."""
    if untested := [s.arm for s in summaries[1:] if not s.tested]:
        told = f"Not tested against it, for want of values of items: {', '.join(untested)}."
        rest = [s for s in summaries if s.arm not in untested]
        return f"{_rivals(rest)} {told}" if len(rest) > 1 else told
    rivals = [s for s in summaries[1:] if s.near_best]
    if not rivals:
        return "Every other arm is worse by more than chance among these items explains."
    told = f"The items cannot tell {len(rivals)} of the {len(summaries) - 1} other arms from it"
    return f"{told}{_cheapest(summaries[0], rivals)}."


def _cheapest(best: Summary, rivals: Sequence[Summary]) -> str:
    cheapest = min((best, *rivals), key=lambda s: s.total_seconds)
    if math.isnan(sum(s.total_seconds for s in (best, *rivals))):
        return ""
    if cheapest is best:
        return ", and none of those takes less time"
    value = _value(cheapest, cheapest.quality.value)
    return (
        f"; the cheapest of those is **{cheapest.arm}** ({value}), which fits and answers "
        f"all items in {units.seconds(cheapest.total_seconds)} where {best.arm} takes "
        f"{units.seconds(best.total_seconds)}"
    )


def _without_labels(summaries: Sequence[Summary]) -> list[str]:
    free = next((s for s in summaries if s.labels == 0), None)
    if free is None or free is summaries[0]:
        return []
    best = summaries[0]
    lost = _plain(best, abs(best.quality.value - free.quality.value))
    value = _value(free, free.quality.value)
    points = " points" if best.measure.unit == "percent" else ""
    way = "more" if best.measure.lower else "less"
    return [f"Without any label, **{free.arm}** gets {value}, {lost}{points} {way}."]


def break_even_table(summaries: Sequence[Summary]) -> str:
    """Markdown of `break_even`, with what it says; empty where there is nothing to compare."""
    found = break_even(summaries)
    if not found:
        return ""
    lines = [
        (b.tuned, b.prompted, "never" if math.isinf(b.queries) else f"{b.queries:,.0f}")
        for b in found
    ]
    head = ("tuned arm", "instead of", "takes less time from query")
    return (
        "Each tuned arm against the best few-shot arm that is not more accurate than it, by the "
        "measured times to fit and a query.\n\n" + markdown(head, lines, (False, False, True))
    )


def caveats(summaries: Sequence[Summary], failures: Sequence[Failure]) -> list[str]:
    """What the reader should hold against the numbers, a sentence each."""
    if not summaries:
        return []
    margin = _margin(summaries[0])
    found = [f"One task and one model: another may rank the arms otherwise. {margin}"]
    if len(summaries) > 1:
        found.append(
            f"{summaries[0].arm} was picked as the best on the items it is judged by, so its "
            "quality is a little too high, and the more arms, the more so."
        )
    if once := [s.arm for s in summaries if s.seeds == 1]:
        found.append(f"Run once, so without a spread over seeds: {', '.join(once)}.")
    if any(s.seeds > 1 for s in summaries):
        found.append(
            "Intervals are over test items with these seeds and draws taken as they are; how far "
            "another seed may move an arm is its standard deviation (sd)."
        )
    partly = {f.arm for f in failures} & {s.arm for s in summaries}
    if partly:
        found.append(f"Only over the runs that did not fail: {', '.join(sorted(partly))}.")
    return found


def _margin(best: Summary) -> str:
    if math.isnan(best.quality.low):
        return "There are no intervals over items: no predictions, or items without a value."
    half = _value(best, (best.quality.high - best.quality.low) / 2)
    return f"The best arm's {best.metric} is known to about ±{half}."
