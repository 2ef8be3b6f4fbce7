"""Cross-validation: what is in which fold, and the whole command with resuming."""

import json
from collections import Counter

import numpy as np
import pytest
from tiny_lm import write_model, write_task

from configs import common, finetune
from lmlite import folds
from lmlite.config import override
from lmlite.data.task import Example
from lmlite.errors import UserError
from lmlite.export import read_run
from lmlite.workdir import write_config

GROUPED = [Example(f"{i}", "p", ("a", "b"), i % 3 == 0, f"g{i // 2}") for i in range(30)]


def test_folds_hold_every_example_once_and_groups_whole():
    parts = folds.split_folds(GROUPED, 4, 0)
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in GROUPED)
    where = {}
    for k, part in enumerate(parts):
        assert len(part) in (6, 8)
        for example in part:
            assert where.setdefault(example.group, k) == k
    assert parts == folds.split_folds(GROUPED, 4, 0) != folds.split_folds(GROUPED, 4, 1)


def test_classes_are_spread_evenly():
    alone = [Example(f"{i}", "p", ("a", "b"), int(i < 8), f"{i}") for i in range(40)]
    for part in folds.split_folds(alone, 4, 0):
        assert Counter(e.target for e in part) == {1: 2, 0: 8}


@pytest.mark.parametrize("count", [1, 16])
def test_numbers_of_folds_that_cannot_be(count):
    with pytest.raises(UserError, match=f"folds={count} must be between 2 and 15"):
        folds.split_folds(GROUPED, count, 0)


def test_the_command_to_folds_json_and_resume(tmp_path, capsys, monkeypatch):
    write_model(tmp_path / "model", layers=1)
    write_task(tmp_path / "task.csv")
    task, model = f"csv:{tmp_path / 'task.csv'}", str(tmp_path / "model")
    config = finetune.get_config(task=task, model=model, method="linear-probe")
    labels = {"task.labels": ("bad", "good"), "task.choices": ("bad", "good")}
    config = override(config.lock(), labels | {"examples": 16, "folds": 3, "seeds": (0, 1)})
    write_config(tmp_path, config)
    folds.cross_validate(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {(r["split"], r["seed"]) for r in rows} == {
        (f"fold-{k}", s) for k in range(3) for s in (0, 1)
    }
    assert sum(r["n"] for r in rows) == 2 * 16
    (found,) = json.loads((tmp_path / "folds.json").read_text())
    mean = sum(r["value"] * r["n"] for r in rows) / 32
    np.testing.assert_allclose(found["value"], mean)
    assert found["low"] <= found["value"] <= found["high"] and len(found["folds"]) == 3
    assert "linear-probe, seed 0, fold-0" in capsys.readouterr().out
    monkeypatch.setattr(folds.Comparison, "outcomes", lambda *args: pytest.fail("fitted again"))
    folds.cross_validate(config, tmp_path)
    assert "| linear-probe |" in capsys.readouterr().out
    with pytest.raises(UserError, match="is a cross-validation, which leaves no one model"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="save=true: folds=3 leave no one model"):
        folds.cross_validate(override(config, {"save": True}), tmp_path)
    with config.unlocked():
        config.arms = {"task-shot": common.prompted("task-shot")}
    with pytest.raises(UserError, match="arm task-shot may show what is held out"):
        folds.cross_validate(config, tmp_path)


def test_folds_are_told_in_the_first_metric():
    def row(metric, value, fold):
        return dict(arm="a", metric=metric, value=value, split=f"fold-{fold}", seed=0)

    def found(metric, values, items):
        rows = [row(metric, v, k) for k, v in enumerate(values)]
        rows += [row("macro_f1", 0.1, k) for k in range(2)]
        shown = [dict(arm="a", seed=0, id=str(i), value=v) for i, v in enumerate(items)]
        return folds.summarised(rows, shown)[0]

    one = found("accuracy", (0.5, 1.0), (0, 1, 1, 1))
    assert one["folds"] == [0.5, 1.0] and one["value"] == 0.75
    bits = found("bits_per_byte", (3.0, 4.0), (3.0, 4.0))
    assert bits["value"] == 3.5 and "| bits_per_byte [95 % CI] |" in folds._report([bits])
    assert "| a | 3.5 [3, 4] |" in folds._report([bits])
    whole = found("macro_f1", (0.3, 0.5), (None, None))
    assert whole["value"] == pytest.approx(0.25) and np.isnan(whole["low"])
