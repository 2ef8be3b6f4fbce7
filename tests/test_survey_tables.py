"""The tables over several tasks and over several points: what they say of every arm."""

import pytest
from test_report import columns_agree, records, run, three_arms

from lmlite.report import summary
from lmlite.report.across import across
from lmlite.report.tasks import by_task


@pytest.mark.parametrize("right, verdict", [(178, "="), (90, "tuning"), (None, "–")])
def test_the_verdict_of_a_survey(right, verdict):
    rows, predictions = records(
        run("16-shot", right or 90), run("lora", 180, family="tuning", labels=64)
    )
    if right is None:
        predictions = [line | {"value": None} for line in predictions]
    table = by_task([("toy", rows, predictions)], "tiny")
    assert f"| {verdict} |\n" in table and "'–' where nothing was tested" in table


def test_a_calibrated_reading_stands_after_its_arm():
    """Though the first task has none."""
    written = [run("zero-shot", 90, labels=0), run("4-shot", 95, labels=4)]
    read = [*written, run("zero-shot+batch", 99, labels=0), run("4-shot+pmi", 98, labels=4)]
    table = by_task([("texts", *records(*written)), ("toy", *records(*read))], "tiny")
    wanted = "zero-shot | zero-shot+calibrated | 4-shot | 4-shot+calibrated"
    assert f"| task | metric | {wanted} | better |" in table


def test_arms_of_any_point_are_lines_of_a_study():
    def at(*arms):
        return summary.summarize(*records(*(run(arm, right) for arm, right in arms)))

    points = [
        ("16", at(("a", 150), ("early", 170))),
        ("64", at(("a", 160), ("b", 155))),
        ("256", at(("late", 190))),
    ]
    text = across(points, "toy", "tiny")
    columns_agree(text)
    lines = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line[:1] == "|"]
    assert lines[2:] == ["a", "b", "early", "late"]


def test_a_point_whose_items_have_no_value_marks_no_arm():
    rows, predictions = three_arms()
    without = [line | {"value": None} for line in predictions]
    points = [(n, summary.summarize(rows, p)) for n, p in (("a", predictions), ("b", without))]
    text = across(points, "toy", "tiny")
    assert "| lora | ~ 90.0 [85.1, 93.4] | 90.0 |" in text
    assert "a column without any is not tested" in text
