"""A study: the arms of each point, and what is run when it is resumed with more."""

import json
import re

import pytest
from tiny_lm import write_model, write_task

from configs import compare
from lmlite.config import override
from lmlite.errors import UserError
from lmlite.study import study
from lmlite.workdir import read_config, write_config


@pytest.fixture
def go(tmp_path, capsys):
    """go(arms, seeds, points, metrics): a study of these arms in one workdir; the jobs that it ran,
    point by point.
    """
    write_model(tmp_path / "model", layers=1)
    write_task(tmp_path / "task.csv")
    source = dict(task=f"csv:{tmp_path / 'task.csv'}", model=str(tmp_path / "model"))

    def run(arms, seeds, points=((8, 1.0, 0), (16, 0.5, 1)), metrics=("accuracy",)):
        config = compare.get_config(**source, arms=arms)
        config.points, config.always = points, ()
        labels = {"task.labels": ("bad", "good"), "task.choices": ("bad", "good")}
        sizes = {"test_items": 10, "seeds": seeds, "draws": (0,), "task.metrics": metrics}
        config = override(config.lock(), labels | sizes)
        write_config(tmp_path / "work", config)
        study(config, tmp_path / "work")
        printed = capsys.readouterr().out.split("report: ")
        return [sorted(re.findall(r"^\[.*\] ([\w-]+, seed \d)", one, re.M)) for one in printed[:2]]

    return run


def test_a_study_without_any_result_says_why(go):
    with pytest.raises(UserError, match="8 labels: arm bias: .* has no biases"):
        go("bias", (0,))


@pytest.mark.parametrize(
    ("points", "always", "words"),
    [
        ((), (), "points is empty"),
        (((0, 1.0, 0),), (), "points: labels=0 must be"),
        (((8, -1.0, 0),), (), "points: factor=-1.0 must be"),
        (((8, 1.0, 0.5),), (), "points: arms kept=0.5 must be a whole number"),
        (((8, 1.0, 0), (16, 1.0, 1)), ("ful",), "always names 'ful', which is no arm here"),
    ],
)
def test_points_that_cannot_be(points, always, words, tmp_path):
    config = compare.get_config(arms="norms")
    config.points, config.always = points, always
    with pytest.raises(UserError, match=words):
        study(config, tmp_path)


def test_a_study_is_resumed_with_more_arms_and_seeds(go, tmp_path):
    first, (best,) = go("zero-shot,norms", (0,))
    assert first == ["norms, seed 0", "zero-shot, seed 0"] and best in first
    rows = (tmp_path / "work" / "8-labels" / "results.jsonl").read_text()
    more, chosen = go("zero-shot,linear-probe,norms", (0, 2))
    assert more == ["linear-probe, seed 0", "linear-probe, seed 2", "norms, seed 2"]
    assert (tmp_path / "work" / "8-labels" / "results.jsonl").read_text().startswith(rows)
    point = read_config(tmp_path / "work" / "16-labels")
    kept = best.split(",")[0]
    assert kept in point["config"]["arms"] and list(point["earlier"][0]["config"]["arms"]) == [kept]
    assert all(job != best for job in chosen)
    found = (tmp_path / "work" / "16-labels" / "results.jsonl").read_text().splitlines()
    assert {json.loads(line)["job"] for line in found} == set(point["config"]["arms"])
    with pytest.raises(UserError, match="config.arms.norms.* is '\\(absent\\)'"):
        go("zero-shot,linear-probe", (0, 2))


def test_a_study_is_resumed_with_more_points_and_tells_of_every_arm(go, tmp_path):
    go("zero-shot,linear-probe", (0,), ((8, 1.0, 0),), ("macro_f1",))
    more = ((8, 1.0, 0), (16, 1.0, 1))
    kept, (best,) = go("zero-shot,linear-probe", (0,), more, ("macro_f1",))
    assert kept == [] and best in ("zero-shot, seed 0", "linear-probe, seed 0")
    told = (tmp_path / "work" / "report.md").read_text()
    assert "macro_f1" in told and "| zero-shot |" in told and "| linear-probe |" in told
    lines = (tmp_path / "work" / "8-labels" / "predictions.jsonl").read_text().splitlines()
    assert all(json.loads(line)["value"] is not None for line in lines)
