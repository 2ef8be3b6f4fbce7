"""The report from made-up records: what it says, and that every shape of a run gives one."""

import dataclasses
import io
import math
import re

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from lmlite.errors import UserError
from lmlite.metrics.kinds import Choices, Likelihoods
from lmlite.metrics.measures import MEASURES
from lmlite.report import labels, pictures, print_table, summary, units, write_report
from lmlite.report.breakeven import break_even

CONFIG = {
    "command": "python -m experiments.compare --workdir=/tmp/x",
    "config": {
        "model": "package:tiny",
        "seeds": [0, 1],
        "task": {
            "source": "package:toy",
            "template": "Text: {text}\nLabel:",
            "choices": ["a", "b"],
        },
    },
    "versions": {"jax": "0.10.2"},
}
ITEMS = 200


def run(arm, right, seed=0, family="in-context", labels=16, fit=1.0, query=0.02, **extra):
    """A row of results.jsonl and its predictions, the first `right` items being right."""
    row = dict(
        arm=arm, task="toy", split="test", seed=seed, metric="accuracy", value=right / ITEMS,
        n=ITEMS, examples=labels, trainable_params=460_800, stored_bytes=3 * 2**20,
        train_seconds=fit, eval_seconds=query * ITEMS, train_flops=1e12, flops_per_query=8e9,
        peak_bytes=2**30, family=family,
    )  # fmt: skip
    lines = [
        dict(arm=arm, task="toy", seed=seed, id=f"{i}", prediction=int(i < right), target=1,
             scores=[-1.0, -2.0])
        for i in range(ITEMS)
    ]  # fmt: skip
    return {**row, **extra}, lines


def records(*runs):
    return [row for row, _ in runs], [line for _, lines in runs for line in lines]


def three_arms():
    return records(
        run("zero-shot", 140, labels=0, fit=0.0),
        run("16-shot", 178, seed=0, query=0.03),
        run("16-shot", 176, seed=1, query=0.03),
        run("lora", 180, family="tuning", labels=64, fit=31.0),
    )


def report(tmp_path, rows, predictions, config=CONFIG):
    write_report(tmp_path, rows, predictions, config)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    columns_agree(text)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    return text


def columns_agree(text):
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def printed(rows, predictions, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_table(rows, predictions, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_summaries_are_ranked_and_paired_with_the_best():
    rows, predictions = three_arms()
    lora, few, zero = summary.summarize(rows, predictions)
    assert (lora.arm, few.arm, zero.arm) == ("lora", "16-shot", "zero-shot")
    assert (lora.near_best, few.near_best, zero.near_best) == (True, False, False)
    assert (few.seeds, few.quality.value) == (2, pytest.approx(0.885))
    assert few.spread == pytest.approx(0.01 / math.sqrt(2))
    assert few.query_seconds == pytest.approx(0.03)
    assert math.isnan(zero.spread)
    near = summary.summarize(*records(run("a", 180), run("b", 179)))
    assert [s.near_best for s in near] == [True, True]


def test_equally_accurate_arms_are_ranked_by_time_and_the_first_is_near_itself():
    first, second = summary.summarize(*records(run("slow", 180, fit=9.0), run("fast", 180)))
    assert (first.arm, second.arm, first.near_best) == ("fast", "slow", True)


def test_a_later_line_replaces_an_earlier_one_and_dev_is_passed_over():
    rows, predictions = three_arms()
    rows.insert(0, {**rows[3], "value": None, "status": "killed"})
    rows.append({**rows[-1], "split": "dev", "value": 0.1})
    assert not summary.failures(rows)
    assert summary.summarize(rows, predictions)[0].quality.value == 0.9


def test_other_items_or_mixed_tasks_are_one_clear_line():
    rows, predictions = three_arms()
    with pytest.raises(UserError, match="arm lora, seed 0 has 199 items") as error:
        summary.summarize(rows, predictions[:-1])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="tasks other, toy are mixed"):
        summary.summarize([*rows, {**rows[0], "task": "other"}], predictions)


def test_report_answers_in_its_first_paragraph(tmp_path):
    text = report(tmp_path, *three_arms())
    answer = text.split("\n\n")[1]
    assert "On toy with tiny, with up to 64 labelled examples, **lora** is the best" in answer
    assert "90.0 % (95 % interval 85.1 to 93.4 over 200 test items)" in answer
    assert "Every other arm is worse" in answer
    assert "**zero-shot** gets 70.0 %, 20.0 points less" in answer
    assert "    Text: {text}\n    Label:" in text and "jax 0.10.2" in text
    assert (tmp_path / "quality_cost.png").read_bytes().startswith(b"\x89PNG")


def test_report_names_the_cheapest_that_is_not_told_apart(tmp_path):
    rows, predictions = records(
        run("lora", 180, family="tuning", fit=31.0), run("dear", 179, fit=9.0), run("cheap", 178)
    )
    text = report(tmp_path, rows, predictions)
    assert "cannot tell 1 of the 2" in text or "cannot tell 2 of the 2" in text
    rows[1]["train_seconds"] = rows[2]["train_seconds"] = 99.0
    assert "none of those takes less time" in report(tmp_path, rows, predictions)
    rows[1]["train_seconds"] = None
    text = report(tmp_path, rows, predictions)
    assert "fits and answers" not in text and "takes less time." not in text


@pytest.mark.parametrize("metric, told", [("perplexity", "30 more."), ("bleu", "30 less.")])
def test_report_says_what_no_label_costs(metric, told, tmp_path):
    lora, free = (10.0, 40.0) if metric == "perplexity" else (40.0, 10.0)
    rows, predictions = records(
        run("zero-shot", 0, labels=0, metric=metric, value=free),
        run("lora", 0, labels=64, metric=metric, value=lora),
    )
    predictions = [line | {"value": None} for line in predictions]
    assert f"**zero-shot** gets {free:.4g}, {told}" in report(tmp_path, rows, predictions)


def test_report_of_one_arm_with_one_seed(tmp_path):
    text = report(tmp_path, *records(run("only", 150, flops_per_query=None)))
    assert "**only** is the only arm" in text and "| – |" in text
    assert "When does tuning pay" not in text and "other arm" not in text


def test_report_lists_failures_and_survives_nan(tmp_path):
    rows, predictions = three_arms()
    rows.append({**rows[3], "arm": "bias", "value": None, "status": "no biases;\nuse norms"})
    rows.append({**rows[3], "arm": "bad|name", "seed": 1, "value": math.nan})
    rows.append({**rows[3], "seed": 1, "value": None, "status": "NaN loss at step 3"})
    rows[0].update(flops_per_query=None, peak_bytes=math.nan)
    text = report(tmp_path, rows, predictions)
    assert "- bias, seed 0, failed: no biases; use norms" in text
    assert "- bad|name, seed 1, failed: accuracy is not a number" in text
    assert "Only over the runs that did not fail: lora." in text
    assert "nan" not in text


def test_report_of_failures_only(tmp_path):
    row, _ = run("lora", 0, value=None, status="NaN loss at step 3")
    text = report(tmp_path, [row], [])
    assert "No arm has a result on toy with tiny." in text and "NaN loss at step 3" in text
    assert not (tmp_path / "quality_cost.png").exists()
    assert "No arm has a result." in printed([row], [], 80)


def test_report_of_fifty_labels_pipes_and_an_empty_config(tmp_path):
    rows, predictions = three_arms()
    rows = [{**row, "arm": row["arm"] + "|x"} for row in rows]
    predictions = [{**line, "arm": line["arm"] + "|x"} for line in predictions]
    task = {"choices": [f"label {i}" for i in range(50)]}
    text = report(tmp_path, rows, predictions, {"config": {"task": task}})
    assert "label 11, … (50 in all)" in text and "label 12" not in text
    assert "On toy, with" in report(tmp_path, rows, predictions, {})


def test_report_shows_other_metrics_as_means_over_seeds(tmp_path):
    rows, predictions = three_arms()
    rows += [{**rows[i], "metric": "macro_f1", "value": v} for i, v in ((1, 0.8), (2, 0.6))]
    text = report(tmp_path, rows, predictions)
    assert "| arm | macro f1 |" in text and "| 16-shot | 0.700 |" in text
    assert "| lora | – |" in text


def test_readings_of_one_run_compile_once(tmp_path):
    rows, predictions = records(
        run("x", 150, job="x", compile_seconds=5.0),
        run("x+batch", 160, job="x", compile_seconds=5.0),
    )
    text = report(tmp_path, rows, predictions)
    assert "all runs together: 5 s" in text and "share its costs" in text
    assert "share its costs" not in report(tmp_path, rows[:1], predictions)


def test_unwritable_workdir_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="workdir .*file: .*; choose another --workdir"):
        write_report(tmp_path / "file", *three_arms(), CONFIG)


def test_without_predictions_there_are_no_intervals(tmp_path):
    rows, _ = three_arms()
    text = report(tmp_path, rows, [])
    assert "| 90.0 |" in text and "There are no intervals over items" in text


def scored(arm, metric, share, family="tuning"):
    """A run whose values are those of a measure of all items together."""
    rng = np.random.default_rng(0)
    targets = np.arange(ITEMS) % 3
    chosen = np.where(np.arange(ITEMS) < share * ITEMS, targets, (targets + 1) % 3)
    scores = rng.normal(size=(ITEMS, 3)) + 3 * np.eye(3)[chosen]
    if MEASURES[metric].of is Likelihoods:
        answers = Likelihoods(rng.normal(-4 + share, 0.3, ITEMS), ["some text"] * ITEMS)
    else:
        answers = Choices(chosen, targets, scores)
    row, lines = run(arm, 0, family=family, metric=metric, value=MEASURES[metric].value(answers))
    values = MEASURES[metric].items(answers) if MEASURES[metric].items else [None] * ITEMS
    return row, [line | {"value": value} for line, value in zip(lines, values, strict=True)]


WHOLE = ["macro_f1", "micro_f1", "balanced_accuracy", "precision", "recall", "matthews"]
LIKELY = ["log_likelihood", "calibration_error", "perplexity", "byte_perplexity"]


@pytest.mark.parametrize("metric", WHOLE + LIKELY + ["word_perplexity"])
def test_arms_far_apart_in_a_measure_of_all_items_are_told_apart(metric, tmp_path):
    arms = {"good": 0.95, "poor": 0.3, "worst": 0.1}
    rows, predictions = records(*(scored(arm, metric, share) for arm, share in arms.items()))
    found = summary.summarize(rows, predictions)
    assert [(s.arm, s.near_best) for s in found][:2] == [("good", True), ("poor", False)]
    assert not found[2].near_best and found[0].quality.low < found[0].quality.high
    assert "Every other arm is worse" in report(tmp_path, rows, predictions)


def test_values_of_items_of_a_whole_are_its_jackknife():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 3))
    whole = Choices(scores.argmax(1), rng.integers(0, 3, 30), scores)
    texts = ["ab cd " * n for n in rng.integers(1, 9, 30)]
    likely = Likelihoods(rng.normal(-30, 5, 30), texts)
    for name in [*WHOLE, *LIKELY, "word_perplexity"]:
        measure = MEASURES[name]
        answers = whole if measure.of is Choices else likely
        rest = [[j for j in range(30) if j != i] for i in range(30)]
        left = [measure.of(*(np.array(f)[own] for f in answers if len(f))) for own in rest]
        left = np.array([measure.value(one) for one in left])
        items = measure.items(answers)
        assert np.mean(items) == pytest.approx(measure.value(answers)), name
        variance = 29 / 30 * np.sum((left - left.mean()) ** 2)
        assert np.var(items, ddof=1) / 30 == pytest.approx(variance), name


def test_a_whole_of_one_item_is_its_value_and_one_that_is_not_defined_has_none():
    one = Choices(np.array([1]), np.array([1]), [np.array([-2.0, -1.0])])
    assert MEASURES["macro_f1"].items(one) == [1.0]
    three = Choices(np.array([1, 2]), np.array([1, 0]), [np.array([0.0, 1.0, 2.0])] * 2)
    assert list(MEASURES["binary_f1"].items(three)) == [None, None]


def test_where_items_have_no_value_nothing_is_said_to_be_near(tmp_path):
    rows, predictions = three_arms()
    predictions = [line | {"value": None} for line in predictions]
    text = report(tmp_path, rows, predictions)
    assert "Not tested against it, for want of values of items: 16-shot, zero-shot." in text
    assert "the cheapest of those" not in text and "Every other arm" not in text
    assert "| ~" not in text and "~ lora" not in printed(rows, predictions, 120)
    assert "Differences from the best" not in text


def test_only_arms_with_values_of_items_are_tested(tmp_path):
    rows, predictions = three_arms()
    predictions = [p | ({"value": None} if p["arm"] == "zero-shot" else {}) for p in predictions]
    text = report(tmp_path, rows, predictions)
    assert "Every other arm is worse by more than chance" in text
    assert "Not tested against it, for want of values of items: zero-shot." in text


def test_the_key_of_the_report_tells_every_column(tmp_path):
    text = report(tmp_path, *three_arms())
    for name in ("kind", "runs", "labels used", "trained params", "peak memory"):
        assert f" {name}: " in text, name


def test_the_template_of_a_task_file_is_not_that_of_the_config(tmp_path):
    task = CONFIG["config"]["task"]
    own = CONFIG | {"config": CONFIG["config"] | {"task": task | {"source": "yaml:my_task.yaml"}}}
    assert "Prompt template" not in report(tmp_path, *three_arms(), own)
    assert "Prompt template:" in report(tmp_path, *three_arms())


@pytest.mark.parametrize("width, tables", [(120, 1), (80, 2), (50, 3)])
def test_table_fits_the_terminal_and_loses_no_column(width, tables):
    text = printed(*three_arms(), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("~ lora") == tables and "…" not in text
    for cell in ("90.0 [85.1, 93.4]", "31 s", "20 ms", "8 G", "461k", "3 MiB", "1 GiB"):
        assert cell in text


def test_table_reaches_an_output_that_lacks_the_characters():
    assert "zero-shot" in printed(*three_arms(), 120, encoding="ascii")


def test_break_even_by_hand():
    tuned, few, zero = summary.summarize(*three_arms())
    # 31 s against 1 s to fit, 20 ms against 30 ms a query: equal after 3000 queries.
    ((arm, rival, queries),) = break_even([tuned, few, zero])
    assert (arm, rival) == ("lora", "16-shot") and queries == pytest.approx(3001, abs=1)
    slow = dataclasses.replace(tuned, query_seconds=1.0)
    assert break_even([slow, few])[0].queries == math.inf
    quick = dataclasses.replace(tuned, fit_seconds=0.5)
    assert break_even([quick, few])[0].queries == 1
    worse = dataclasses.replace(tuned, quality=zero.quality)
    assert break_even([worse, few, zero]) == []


def test_frontier_by_exhaustion():
    rng = np.random.default_rng(0)
    cost, quality = rng.integers(0, 6, 20).astype(float), rng.integers(0, 6, 20).astype(float)
    kept = pictures.frontier(cost, quality)
    for i in range(20):
        better = (cost <= cost[i]) & (quality >= quality[i])
        better &= (cost < cost[i]) | (quality > quality[i])
        same = [j for j in kept if (cost[j], quality[j]) == (cost[i], quality[i])]
        assert bool(same) == (not better.any())
    assert list(cost[kept]) == sorted(cost[kept])


def test_names_in_the_picture_do_not_cover_each_other():
    figure = pictures.Figure(figsize=(5, 5))
    canvas = pictures.FigureCanvasAgg(figure)
    ax = figure.subplots()
    y = np.linspace(0.88, 0.89, 12)
    x = np.tile([0.0, 1.0, 2.0], 4)
    ax.set(xlim=(-0.5, 3), ylim=(0.8, 0.95))
    labels.place(ax, x, y, [(f"some arm {i}", "black") for i in range(12)])
    canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # the words, not the leaders
    overlaps = [(i, j) for i in range(12) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert overlaps == []


@pytest.mark.parametrize(
    "text, expected",
    [
        (units.count(1_234_567), "1.23M"), (units.count(64), "64"), (units.flops(13.4e9), "13.4 G"),
        (units.size(3 * 2**20), "3 MiB"), (units.size(0), "0"), (units.seconds(0.0123), "12.3 ms"),
        (units.seconds(90), "1.5 min"), (units.percent(0.9125), "91.2"),
        (units.count(math.nan), "–"), (units.count(100), "100"), (units.count(999_999), "1M"),
    ],
)  # fmt: skip
def test_units(text, expected):
    assert text == expected
