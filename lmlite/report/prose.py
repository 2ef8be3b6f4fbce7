"""The sentences of report.md, every one computed from the summaries."""

import math
from collections.abc import Sequence

from lmlite.metrics import Estimate
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
    best, a = summaries[0], summaries[0].accuracy
    runs = f", standard deviation {units.percent(best.spread)} over {best.seeds} runs"
    return (
        f"**{best.arm}** {'is the most accurate' if len(summaries) > 1 else 'is the only arm'}: "
        f"{units.percent(a.value)} % (95 % interval {units.percent(a.low)} to "
        f"{units.percent(a.high)} over {best.items} test items{runs if best.seeds > 1 else ''})."
    )


def _rivals(summaries: Sequence[Summary]) -> str:
    best = summaries[0]
    rivals = [s for s in summaries[1:] if s.near_best]
    if not rivals:
        return "Every other arm is worse by more than chance among these items explains."
    told = f"The items cannot tell {len(rivals)} of the {len(summaries) - 1} other arms from it"
    cheapest = min((best, *rivals), key=lambda s: s.total_seconds)
    if math.isnan(sum(s.total_seconds for s in (best, *rivals))):
        return f"{told}."
    if cheapest is best:
        return f"{told}, and none of those takes less time."
    value = units.percent(cheapest.accuracy.value)
    return (
        f"{told}; the cheapest of those is **{cheapest.arm}** ({value} %), which fits and answers "
        f"all items in {units.seconds(cheapest.total_seconds)} where {best.arm} takes "
        f"{units.seconds(best.total_seconds)}."
    )


def _without_labels(summaries: Sequence[Summary]) -> list[str]:
    free = next((s for s in summaries if s.labels == 0), None)
    if free is None or free is summaries[0]:
        return []
    lost = units.percent(summaries[0].accuracy.value - free.accuracy.value)
    value = units.percent(free.accuracy.value)
    return [f"Without any label, **{free.arm}** gets {value} %, {lost} points less."]


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
    a = summaries[0].accuracy
    found = [f"One task and one model: another may rank the arms otherwise. {_margin(a)}"]
    if len(summaries) > 1:
        found.append(
            f"{summaries[0].arm} was picked as the best on the items it is judged by, so its "
            "accuracy is a little too high, and the more arms, the more so."
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


def _margin(a: Estimate) -> str:
    if math.isnan(a.low):
        return "Without predictions there are no intervals over items."
    half = units.percent((a.high - a.low) / 2)
    return f"The best arm's accuracy is known to about ±{half} points."
