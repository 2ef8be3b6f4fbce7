"""Files that a kill cannot tear, and records that add all of an arm's rows or none."""

import json
import os
import subprocess

import numpy as np
import pytest

from lmlite import workdir
from lmlite.errors import UserError
from lmlite.workdir import Records, event_writer, run_record, write_text


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
    monkeypatch.setattr(workdir, "ROOT", tmp_path)
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
    monkeypatch.setattr(workdir, "ROOT", tmp_path / "site-packages")  # inside another's clone
    (tmp_path / "site-packages").mkdir()
    assert run_record()["commit"] is None
