"""The whole path from command line to report, on a tiny random model and a csv file."""

import json
import re

import pytest
from tiny_lm import write_model, write_task

SMALL = [
    "--config.task.template={text}?",
    "--config.task.labels=('bad','good')",
    "--config.task.choices=('no','yes')",
    "--config.examples=24",
    "--config.test_items=20",
    "--config.seeds=(0,)",
    "--config.draws=(0,1)",
]
ARMS = "zero-shot,4-shot,linear-probe,last-2-layers,lora-qv"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_model(folder / "model")
    write_task(folder / "task.csv")
    return folder


def command(files, workdir, arms=ARMS, *more, experiment="compare", task=None):
    arguments = f"task=csv:{task or files / 'task.csv'},model={files / 'model'}"
    if experiment == "compare":
        arguments += f",arms={arms}"
    config = f"--config=configs/{experiment}.py:{arguments}"
    return ["-m", f"experiments.{experiment}", config, f"--workdir={workdir}", *SMALL, *more]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_command_to_report_and_resume(files, run_python, tmp_path):
    work = tmp_path / "work"
    done = run_python(*command(files, work))
    assert done.returncode == 0, done.stderr
    rows = lines(work / "results.jsonl")
    names = {row["arm"] for row in rows}
    readings = {
        f"{arm}{r}" for arm in ("zero-shot", "4-shot") for r in ("", "+contextual", "+batch")
    }
    assert names == readings | {"linear-probe", "last-2-layers", "lora-qv"}
    contract = (
        "arm task split seed metric value n examples trainable_params stored_bytes train_seconds "
        "eval_seconds train_flops train_bytes flops_per_query bytes_per_query peak_bytes"
    )
    assert all(set(contract.split()) <= set(row) for row in rows)
    assert all(row["n"] == 20 and row["flops_per_query"] > 0 for row in rows)
    assert all(row["bytes_per_query"] > 0 for row in rows)
    labels = {row["arm"]: row["examples"] for row in rows}
    moved = {row["arm"]: row["train_bytes"] for row in rows}
    assert moved["zero-shot"] == 0 and moved["lora-qv"] > moved["4-shot"] > 0
    assert labels["zero-shot"] == 0 and labels["4-shot"] == 4 and labels["lora-qv"] == 24
    predictions = lines(work / "predictions.jsonl")
    assert len(predictions) == 20 * len(rows)
    assert {p["prediction"] for p in predictions} <= {"no", "yes"}
    for row in rows:
        mine = [p for p in predictions if (p["arm"], p["seed"]) == (row["arm"], row["seed"])]
        assert sum(p["prediction"] == p["target"] for p in mine) == pytest.approx(20 * row["value"])
    report = (work / "report.md").read_text()
    assert "lora-qv" in report and (work / "quality_cost.png").stat().st_size > 10_000
    assert list((work / "tb" / "lora-qv-0").iterdir())

    kept = [row for row in rows if row["job"] != "lora-qv"]
    (work / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    again = run_python(*command(files, work))
    assert again.returncode == 0, again.stderr
    assert re.findall(r"^\[\d+/\d+\] ([\w-]+)", again.stdout, re.M) == ["lora-qv"]
    rerun = {row["arm"]: row["value"] for row in lines(work / "results.jsonl")}
    assert rerun["lora-qv"] == {row["arm"]: row["value"] for row in rows}["lora-qv"]


def test_a_file_that_has_changed_is_not_mixed_in(files, run_python, tmp_path):
    work, task = tmp_path / "work", tmp_path / "task.csv"
    task.write_text((files / "task.csv").read_text())
    assert run_python(*command(files, work, "zero-shot", task=task)).returncode == 0
    before = (work / "results.jsonl").read_text()
    task.write_text(task.read_text().replace(" b,bad", " q,bad"))
    done = run_python(*command(files, work, "zero-shot,linear-probe", task=task))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "rows, texts or prompts have changed" in done.stderr
    assert (work / "results.jsonl").read_text() == before
    task.write_text((files / "task.csv").read_text())
    done = run_python(*command(files, work, "zero-shot,linear-probe", task=task))
    assert done.returncode == 0 and (work / "results.jsonl").read_text().startswith(before)


def test_seeds_fitted_together_are_recorded_one_by_one(files, run_python, tmp_path):
    work = tmp_path / "work"
    more = "--config.seeds=(0,1,2)", "--config.together=2"
    done = run_python(*command(files, work, "norms", *more))
    assert done.returncode == 0, done.stderr
    rows = lines(work / "results.jsonl")
    told = [(row["arm"], row["seed"], row["fitted_together"]) for row in rows]
    assert sorted(told) == [("norms", 0, 2), ("norms", 1, 2), ("norms", 2, 1)]
    assert all(row[f"train_{cost}"] > 0 for row in rows for cost in ("seconds", "flops", "bytes"))
    assert all(row["evaluated_together"] == row["fitted_together"] for row in rows)
    assert all(row["eval_seconds"] > 0 for row in rows)
    seconds = {(row["arm"], row["seed"]): row["train_seconds"] for row in rows}
    assert seconds["norms", 0] == seconds["norms", 1] != seconds["norms", 2]
    for folder in ("tb", "checkpoints"):
        assert len(list((work / folder).iterdir())) == 3


def test_an_arm_that_cannot_run_leaves_the_others(files, run_python, tmp_path):
    done = run_python(*command(files, tmp_path / "work", "zero-shot,bias"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "has no biases" in done.stderr
    assert {r["job"] for r in lines(tmp_path / "work" / "results.jsonl")} == {"zero-shot"}
    assert "has no biases" in (tmp_path / "work" / "report.md").read_text()


def test_finetune_writes_a_model_that_loads(files, run_python, tmp_path):
    import lmlite

    work = tmp_path / "work"
    done = run_python(*command(files, work, "", "--config.save=true", experiment="finetune"))
    assert done.returncode == 0, done.stderr
    tuned = lmlite.load(work / "model" / "lora-qv-0")
    assert tuned.logits([[1, 2, 3]]).shape == (1, 3, 256)


def test_what_cannot_be_saved_is_not_trained_first(files, run_python, tmp_path):
    more = "--config.save=true", "--config.folds=0"
    call = command(files, tmp_path / "work", "", *more, experiment="finetune")
    call[2] += ",method=houlsby"
    done = run_python(*call)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "save=true: what houlsby trains cannot be folded" in done.stderr
    assert not (tmp_path / "work" / "checkpoints").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.task.template={txt}?"], "there is no column 'txt'"),
        (["--config.task.label=lable"], "there is no column 'lable'"),
        (["--config.task.labels=('bad','fine')"], "label 'good' of row"),
        (["--config.task.ignore_labels=('bad',)"], "needs at least two classes"),
        (["--config.examples=5000"], "5000 labelled examples are asked for"),
        (["--config.exmaples=5"], "examples"),
        (["--config.model=/nowhere"], "'/nowhere' does not exist"),
        (["--config.dtype=int4"], "dtype 'int4'"),
        (["--config.dev_fraction=1.0"], "leaves none to train on"),
        (["--config.arms.zero-shot.readings=('magic',)"], "reading 'magic'"),
        (["--workdir=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, run_python, tmp_path, arguments, message):
    done = run_python(*command(files, tmp_path / "work", "zero-shot", *arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and message in done.stderr, done.stderr


def test_prompt_longer_than_the_context(files, run_python, tmp_path):
    task = tmp_path / "long.csv"
    text = "x" * 1100
    rows = [f"{text} {i}{'bg'[i % 2]},{('bad', 'good')[i % 2]}" for i in range(80)]
    task.write_text("text,label\n" + "\n".join(rows) + "\n")
    done = run_python(*command(files, tmp_path / "work", "zero-shot", task=task))
    assert done.returncode == 2
    assert "longer than the model's context of 1024" in done.stderr
