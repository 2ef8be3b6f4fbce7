"""Config files: strict arguments, typed overrides, sweeps; and every config of the repository."""

import json

import pytest
from ml_collections import ConfigDict

from configs import survey
from lmlite import config as configs
from lmlite.config import ROOT, cast, leaves, load, nearest, override, product, sweeps, to_json
from lmlite.data.tasks import load_task
from lmlite.errors import UserError

FILE = """
from ml_collections import ConfigDict

def get_config(model="tiny", task="reviews", seeds=(0,), fast=False):
    if task == "none":
        raise ValueError("task 'none' has no labels; name another")
    return ConfigDict(dict(
        model=model, task=task, seeds=seeds, fast=fast, name=None,
        tune=dict(steps=10, rate=1e-3, split=(("train", 0.6), ("test", 0.4)), layers=("q", "v")),
    ))

def sweep_rate():
    for rate in (1e-3, 1e-4):
        yield {"tune.rate": rate}

def sweep_model():
    for model in ("tiny", "small"):
        yield {"model": model}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(FILE)
    return path


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as raised:
        function(*args)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("", {}),
        ("model=small", {"model": "small"}),
        (
            "model=hf://org/name@main,task=csv:/a/b=c.csv",
            {
                "model": "hf://org/name@main",
                "task": "csv:/a/b=c.csv",
            },
        ),
        ("seeds=0,1,2,fast=true", {"seeds": (0, 1, 2), "fast": True}),
        ("model=", {"model": ""}),
    ],
)
def test_arguments_set_the_keywords_of_get_config(file, arguments, expected):
    _, config = load(f"{file}:{arguments}")
    defaults = {"model": "tiny", "task": "reviews", "seeds": (0,), "fast": False}
    assert {name: config[name] for name in defaults} == defaults | expected
    assert config.is_locked


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("modle=x", ("modle does not exist", ":model")),
        ("model", ("'model'", "model=VALUE")),
        ("model=a,model=b", ("'model'", "twice")),
        ("fast=yes", ("fast=yes", "False")),
        ("seeds=a", ("seeds=a", "(0,)")),
        ("task=none", ("task=none", "no labels")),
    ],
)
def test_bad_arguments_are_refused(file, arguments, words):
    message = error_of(load, f"{file}:{arguments}")
    assert all(word in message for word in words), message


def test_a_file_that_is_no_config_is_refused(tmp_path):
    (tmp_path / "other.py").write_text("")
    assert "get_config" in error_of(load, f"{tmp_path}/other.py")
    assert "not a Python file" in error_of(load, f"{tmp_path}/absent.py:model=x")


def test_config_files_are_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "root" / "configs").mkdir(parents=True)
    (tmp_path / "root" / "configs" / "job.py").write_text(FILE)
    monkeypatch.setattr(configs, "ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    assert load("configs/job.py")[1].model == "tiny"
    assert "nearest is configs/job.py" in error_of(load, "configs/jbo.py")


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("model", "12", "12"),
        ("model", r"a\nb:", "a\nb:"),
        ("tune.layers", r"('\n', 'k')", ("\n", "k")),
        ("tune.layers", r"\n\n,k", ("\n\n", "k")),
        ("tune.steps", "20", 20),
        ("tune.steps", 20, 20),
        ("tune.rate", "1", 1.0),
        ("tune.rate", "inf", float("inf")),
        ("fast", "True", True),
        ("name", "x,y", "x,y"),
        ("name", "3", 3),
        ("name", "none", None),
        ("seeds", "4", (4,)),
        ("seeds", "", ()),
        ("seeds", "(1, 2)", (1, 2)),
        ("tune.layers", "k,o", ("k", "o")),
        ("tune.layers", "1,2", ("1", "2")),
        ("tune.split", "[['dev', 1]]", (("dev", 1.0),)),
        ("tune.split", "(('dev', 'validation'),)", (("dev", "validation"),)),
    ],
)
def test_overrides_take_the_type_of_the_default(file, path, value, expected):
    before = load(str(file))[1]
    unchanged = leaves(before)
    after = leaves(override(before, {path: value}))
    assert after == unchanged | {path: expected}
    assert type(after[path]) is type(expected)
    assert leaves(before) == unchanged


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("tune.stps", "1", ("tune.stps does not exist", "config.tune.steps")),
        ("rate", "1", ("rate does not exist", "config.tune.rate")),
        ("tune", "1", ("group", "config.tune.steps")),
        ("tune.steps", "1.5", ("tune.steps=1.5", "10")),
        ("tune.steps", "none", ("tune.steps=none", "10")),
        ("tune.steps", True, ("tune.steps=True", "10")),
        ("fast", "1", ("fast=1", "False")),
        ("tune.split", "train", ("tune.split=train", "0.6")),
        ("tune.split", "(('train', 1, 2),)", ("tune.split", "0.6")),
        ("seeds", "1,x", ("seeds=1,x", "(0,)")),
    ],
)
def test_bad_overrides_are_refused(file, path, value, words):
    message = error_of(override, load(str(file))[1], {path: value})
    assert all(word in message for word in words), message


def test_overrides_reach_every_level_of_a_locked_copy(file):
    config = override(load(str(file))[1], {"tune.steps": 3})
    assert config.is_locked and config.tune.is_locked


@pytest.mark.parametrize(
    "value, expected",
    [
        ("a,2", ("a", 2)),
        ("1.5,-3", (1.5, -3)),
        ("true,False", ("true", "False")),
        ("none", ("none",)),
        ("None,", ("None",)),
        ("'1',\"true\"", ("1", "true")),
        ("('true','false')", ("true", "false")),
        ("['none', '2', 2, True, None]", ("none", "2", 2, True, None)),
        (("true", "2"), ("true", "2")),
        ("", ()),
    ],
)
def test_an_empty_tuple_takes_any_elements_as_they_are(value, expected):
    found = cast(value, ())
    assert found == expected and [*map(type, found)] == [*map(type, expected)]


def test_true_and_false_are_labels_like_others(tmp_path):
    rows = [f"{i},{('true', 'false', 'none')[i % 3]}\n" for i in range(90)]
    (tmp_path / "task.csv").write_text("text,label\n" + "".join(rows))
    source = f"task=csv:{tmp_path / 'task.csv'}"
    names = {"task.labels": "true,false", "task.choices": "true,false"}
    names["task.ignore_labels"] = "none"
    config = override(load(f"configs/compare.py:{source}")[1], names)
    task = load_task(config.task)
    assert task.choices == ("true", "false")
    assert {e.answer for e in task.train} == {"true", "false"}


def test_sweeps_combine_by_product(file):
    found = sweeps(load(str(file))[0])
    points = list(product(found["rate"](), found["model"]()))
    assert list(found) == ["rate", "model"]
    assert len(points) == 4
    assert points[1] == {"tune.rate": 1e-3, "model": "small"}
    assert list(product()) == [{}]
    assert "same field" in error_of(list, product(found["rate"](), found["rate"]()))


def test_nearest():
    assert nearest("stpes", ["seed", "steps", "rate"]) == "steps"
    assert nearest("lora.rank", ["lora.rate", "arms.adapters.rank"]) == "arms.adapters.rank"
    assert nearest("x", []) == ""


def test_json_of_a_config_is_what_a_reader_returns():
    config = ConfigDict({"a": {"b": (1, ("c", None))}, "d": 0.5})
    assert to_json(config) == {"a": {"b": [1, ["c", None]]}, "d": 0.5}
    assert json.loads(json.dumps(to_json(config))) == to_json(config)


def test_a_survey_takes_files_of_your_own():
    config = survey.get_config(tasks="csv:a.b/re-views.csv,tang_poems").lock()
    assert list(config.tasks) == ["csv_a_b_re-views_csv", "tang_poems"]
    assert config.tasks["csv_a_b_re-views_csv"].source == "csv:a.b/re-views.csv"


def test_every_config_builds_and_every_sweep_applies():
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if "def get_config" not in path.read_text():
            continue  # a part that other configs import
        module, config = load(str(path))
        assert to_json(config), path
        for sweep in sweeps(module).values():
            points = list(sweep())
            assert points, (path, sweep)
            for point in points:
                assert leaves(override(config, point)).items() >= point.items(), (path, point)
