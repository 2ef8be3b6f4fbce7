"""Files that a kill cannot tear, and records that add all of an arm's rows or none."""

import json
import os
import subprocess

import numpy as np
import pytest
from ml_collections import ConfigDict

from lmlite import record
from lmlite.errors import UserError
from lmlite.record import run_record
from lmlite.workdir import Records, event_writer, read_config, write_config, write_text

CONFIG = {
    "seeds": (0, 1),
    "draws": (0,),
    "task": {"source": "csv:a"},
    "arms": {"lora": {"kind": "tuned", "train": {"epochs": 3}}, "few": {"kind": "in_context"}},
}
MORE = {"zero": {"kind": "in_context"}, **CONFIG["arms"]}


def test_text_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    write_text(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_records_come_back_in_order(tmp_path):
    records = Records(tmp_path / "r.jsonl")
    assert records.rows() == []
    records.add([{"arm": "lora", "value": np.float32(0.5)}, {"scores": np.arange(2)}])
    records.add([{"text": "two\nlines\u2028"}])
    expected = [{"arm": "lora", "value": 0.5}, {"scores": [0, 1]}, {"text": "two\nlines\u2028"}]
    assert Records(tmp_path / "r.jsonl").rows() == expected


def test_a_bad_row_adds_none_of_its_rows(tmp_path):
    records = Records(tmp_path / "r.jsonl")
    records.add([{"value": 1}])
    with pytest.raises(ValueError):
        records.add([{"value": 2}, {"value": float("nan")}])
    assert records.rows() == [{"value": 1}]


def test_a_torn_line_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"value": 1}) + '\n{"val')
    with pytest.raises(UserError, match=r"r\.jsonl:2 .*delete that line"):
        Records(path).rows()


def test_events_land_in_tb(tmp_path):
    with event_writer(tmp_path, "lora") as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert [p.name.startswith("events.") for p in (tmp_path / "tb" / "lora").iterdir()] == [True]


def test_a_run_record_tells_the_commit_and_whether_it_has_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert run_record()["commit"] is None

    def git(*arguments):
        command = [
            "git",
            "-C",
            str(tmp_path),
            "-c",
            "user.name=a",
            "-c",
            "user.email=a",
            *arguments,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    write_text(tmp_path / "file", "one")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert run_record()["commit"] == commit
    write_text(tmp_path / "file", "two")
    assert run_record()["commit"] == f"{commit}-dirty"
    monkeypatch.setattr(record, "ROOT", tmp_path / "site-packages")  # inside another's clone
    (tmp_path / "site-packages").mkdir()
    assert run_record()["commit"] is None


def test_a_run_may_be_resumed_with_more_arms_seeds_and_draws(tmp_path):
    more = CONFIG | {"arms": MORE, "seeds": (0, 1, 7), "draws": (0, 4)}
    write_text(tmp_path / "results.jsonl", "{}")
    for config in (CONFIG, CONFIG, more, more):
        write_config(tmp_path, ConfigDict(config))
    record = read_config(tmp_path)
    assert record["config"]["seeds"] == [0, 1, 7] and record["config"]["draws"] == [0, 4]
    assert set(record["config"]["arms"]) == {"zero", "lora", "few"}
    first, second, third = record["earlier"]
    assert "config" not in first and "config" not in third
    assert second["config"] == json.loads(json.dumps(CONFIG))


TASKS = {"a-b": {"source": "csv:a", "metrics": ["f1"]}, "c": {"source": "csv:c"}}


@pytest.mark.parametrize(
    "had, more",
    [
        ({"tasks": TASKS}, {"tasks": {"new": {"source": "csv:b"}, **TASKS}}),
        ({"points": ((64, 1.0, 0),)}, {"points": ((64, 1.0, 0), (256, 1.0, 5))}),
        ({"points": ((8, 2.0, 0), (64, 1.0, 5))},
         {"points": ((8, 2.0, 0), (16, 2.0, 0), (64, 1.0, 5))}),
    ],
)  # fmt: skip
def test_a_survey_takes_more_tasks_and_a_study_more_points(tmp_path, had, more):
    write_text(tmp_path / "results.jsonl", "{}")
    for config in (CONFIG | had, CONFIG | more, CONFIG | more):
        write_config(tmp_path, ConfigDict(config))
    record = read_config(tmp_path)
    assert record["config"] == json.loads(json.dumps(CONFIG | more))
    assert record["earlier"][0]["config"] == json.loads(json.dumps(CONFIG | had))


@pytest.mark.parametrize(
    "had, change, told",
    [
        ({"tasks": TASKS}, {"tasks": {"c": TASKS["c"]}}, "tasks.a-b.* is '.absent.'"),
        ({"tasks": TASKS}, {"tasks": {**TASKS, "c": {"source": "csv:d"}}}, "tasks.c.source is"),
        ({"points": ((8, 1.0, 0), (16, 1.0, 0))}, {"points": ((8, 1.0, 0),)}, "points is"),
        ({"points": ((8, 1.0, 0),)}, {"points": ((8, 2.0, 0), (16, 1.0, 0))}, "points is"),
        ({"points": ((8, 1.0, 0), (16, 1.0, 0))}, {"points": ((16, 1.0, 0), (8, 1.0, 0))},
         "points is"),
        # Its folder is that of the old point.
        ({"points": ((8, 1.0, 0),)}, {"points": ((8, 1.0, 0), (8, 2.0, 0))}, "points is"),
    ],
)  # fmt: skip
def test_tasks_and_points_that_it_had_must_stay(tmp_path, had, change, told):
    write_config(tmp_path, ConfigDict(CONFIG | had))
    write_text(tmp_path / "results.jsonl", "{}")
    with pytest.raises(UserError, match=f"config.{told}.*name another --workdir"):
        write_config(tmp_path, ConfigDict(CONFIG | change))


@pytest.mark.parametrize(
    "change, told",
    [
        ({"arms": {"lora": CONFIG["arms"]["lora"]}}, r"arms.few.kind is '\(absent\)'.*'in_c"),
        ({"arms": MORE | {"few": {"kind": "tuned"}}}, "arms.few.kind is 'tuned'.*'in_context'"),
        ({"arms": MORE | {"few": {"kind": "in_context", "k": 1}}}, "arms.few.k is 1.*absent"),
        ({"seeds": (0,)}, r"seeds is \[0\] but.*\[0, 1\]"),
        ({"seeds": (1, 0, 2)}, r"seeds is \[1, 0, 2\]"),
        ({"draws": ()}, r"draws is \[\]"),
        ({"task": {"source": "csv:b"}}, "task.source is 'csv:b'"),
        ({"arms": MORE, "examples": 3}, "examples is 3"),
    ],
)
def test_what_it_had_must_stay(tmp_path, change, told):
    write_config(tmp_path, ConfigDict(CONFIG))
    write_text(tmp_path / "checkpoints" / "1", "")
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=f"config.{told}.*name another --workdir"):
        write_config(tmp_path, ConfigDict(CONFIG | change))
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_that_left_nothing_but_its_config_may_be_changed(tmp_path):
    mended = CONFIG | {"task": {"source": "csv:b"}}
    for config in (CONFIG, mended):
        write_config(tmp_path / "one", ConfigDict(config))  # as a study does for its points
        write_config(tmp_path, ConfigDict(config))
    assert read_config(tmp_path)["config"]["task"] == mended["task"]
    assert read_config(tmp_path)["earlier"] == []


def test_a_config_that_is_not_a_run_is_left_alone(tmp_path):
    write_text(tmp_path / "config.json", "{}")
    with pytest.raises(UserError, match="is not a run's config.json; name another --workdir"):
        write_config(tmp_path, ConfigDict(CONFIG))
    assert (tmp_path / "config.json").read_text() == "{}"
