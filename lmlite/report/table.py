"""The comparison as a table: in the terminal and in Markdown, from the same columns."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmlite.report import units
from lmlite.report.summary import Failure, Records, Summary, failures, summarize

NEAR_BEST = "~"
KEY = (
    f"Best first. {NEAR_BEST} marks arms that these test items cannot tell from the best (the 95 % "
    "interval of the paired difference includes 0); an arm without an interval is not tested. sd: "
    "over seeds or demonstration draws."
)
NOTHING = "No arm has a result."
PIPE_WIDTH = 120  # characters, where the output is not a terminal
GAP = 2  # between columns


class Column(NamedTuple):
    """A column of the table: its head, and what it says of an arm; right: aligned there."""

    head: str
    cell: Callable[[Summary], str]
    right: bool = True


ARM = Column("arm", lambda s: f"{NEAR_BEST if s.near_best else ' '} {s.arm}", right=False)
COLUMNS = (
    Column("labels\nused", lambda s: units.count(s.labels)),
    Column("time\nto fit", lambda s: units.seconds(s.fit_seconds)),
    Column("time\na query", lambda s: units.seconds(s.query_seconds)),
    Column("FLOPs\na query", lambda s: units.flops(s.query_flops)),
    Column("trained\nparams", lambda s: units.count(s.trainable_params)),
    Column("stored\nbytes", lambda s: units.size(s.stored_bytes)),
    Column("peak\nmemory", lambda s: units.size(s.peak_bytes)),
)


def quality(summaries: Sequence[Summary]) -> tuple[Column, Column]:
    """The columns of the measure that these arms are compared by."""
    unit = summaries[0].measure.unit
    head = f"{summaries[0].metric}{' %' if unit == 'percent' else ''}\n[95 % CI]"
    return (
        Column(head, lambda s: units.estimate(s.quality, unit)),
        Column("sd", lambda s: units.value(s.spread, unit)),
    )


KIND = Column("kind", lambda s: s.family, right=False)
RUNS = Column("runs", lambda s: str(s.seeds))


def markdown_table(summaries: Sequence[Summary]) -> str:
    """All columns, a line an arm, ending without a newline."""
    columns = (ARM, KIND, *quality(summaries), RUNS, *COLUMNS)
    return markdown(
        [column.head for column in columns],
        [[column.cell(s).strip() for column in columns] for s in summaries],
        [column.right for column in columns],
    )


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A Markdown table of text cells; `right` says which columns are set flush right."""
    rule = ["---:" if flush else "---" for flush in right]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in (head, rule, *lines))


def print_table(rows: Records, predictions: Records, console: Console | None = None) -> None:
    """Print the comparison; where it is wider than the console, the columns go on below.

    rows, predictions: as for `summarize`, with the UserErrors it raises.
    """
    console = console or _console()
    summaries = summarize(rows, predictions)
    for columns in _pages(summaries, console.width) if summaries else ():
        _print(console, _table(summaries, columns))
    _print(console, KEY if summaries else NOTHING)
    for failure in failures(rows):
        _print(console, escape(failed(failure)))


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def failed(failure: Failure) -> str:
    """One line: who failed, and why."""
    return f"{failure.arm}, seed {failure.seed}, failed: {failure.reason}"


def _pages(summaries: Sequence[Summary], width: int) -> list[list[Column]]:
    """Columns in as few tables as `width` allows, each of which begins with the arm."""
    pages, room = [], 0
    for column in (*quality(summaries), *COLUMNS):
        if not pages or GAP + _width(summaries, column) > room:
            pages.append([ARM])
            room = width - _width(summaries, ARM)
        pages[-1].append(column)
        room -= GAP + _width(summaries, column)
    return pages


def _width(summaries: Sequence[Summary], column: Column) -> int:
    return max(map(len, [*column.head.split("\n"), *(column.cell(s) for s in summaries)]))


def _table(summaries: Sequence[Summary], columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=True)
    for summary in summaries:
        table.add_row(*(escape(column.cell(summary)) for column in columns))
    return table


def _print(console: Console, what: Table | str) -> None:
    """Characters that the output's encoding lacks become '?', so that no result is lost to them."""
    with console.capture() as capture:
        console.print(what, highlight=False)
        console.print()
    text = capture.get()
    console.file.write(text.encode(console.encoding, "replace").decode(console.encoding))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
