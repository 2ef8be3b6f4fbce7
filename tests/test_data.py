"""Packages, sources, splits and tasks: what is read, and the one line each bad input gets."""

import bz2
import dataclasses
import gzip
import json
import re
import shutil
import tarfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from ml_collections import ConfigDict

from lmlite.data import packages, sources
from lmlite.data.packages import PACKAGES, Package
from lmlite.data.splits import held_out, sample, split_of
from lmlite.data.task import Example
from lmlite.data.tasks import load_task
from lmlite.errors import UserError

# Packages ------------------------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package 'tiny' whose wheel the real pip finds in a folder; the cache is empty."""
    (tmp_path / "b.txt").write_text("deep")
    with tarfile.open(tmp_path / "n.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "b.txt", "in/b.txt")
    path = tmp_path / "index" / "lmlite_tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/a.txt", "shallow")
        file.write(tmp_path / "n.tar.gz", "tiny/n.tar.gz")
        metadata = "Metadata-Version: 2.1\nName: lmlite-tiny\nVersion: 1.0\n"
        file.writestr("lmlite_tiny-1.0.dist-info/METADATA", metadata)
        file.writestr("lmlite_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    monkeypatch.setenv("LMLITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    entry = Package(
        registry="pypi",
        requirement="lmlite-tiny==1.0",
        archive=path.name,
        sha256=packages.sha256(path),
        size=path.stat().st_size,
        licence="MIT",
        members=("tiny/a.txt", "tiny/n.tar.gz!in/b.txt"),
    )
    monkeypatch.setitem(PACKAGES, "tiny", entry)
    return path


def no_client(*_):
    raise AssertionError("the registry was asked again")


def test_fetch_then_cache(wheel, monkeypatch, capsys):
    assert packages.fetch("tiny").read_bytes() == wheel.read_bytes()
    assert capsys.readouterr().err == "fetching lmlite-tiny==1.0 (0.0 MB) ...\n"
    monkeypatch.setattr(packages, "_download", no_client)
    assert packages.fetch("tiny").read_bytes() == wheel.read_bytes()


def test_wrong_hash_keeps_nothing(wheel, monkeypatch):
    bad = dataclasses.replace(PACKAGES["tiny"], sha256="0" * 64)
    monkeypatch.setitem(PACKAGES, "tiny", bad)
    with pytest.raises(UserError) as error:
        packages.fetch("tiny")
    for part in ("lmlite-tiny==1.0", "0" * 64, packages.sha256(wheel)):
        assert part in str(error.value)
    assert not list((packages.cache_dir() / "archives").iterdir())


def test_hash_is_checked_without_the_clients_help(wheel, monkeypatch):
    bad = dataclasses.replace(PACKAGES["tiny"], sha256="0" * 64)
    monkeypatch.setitem(PACKAGES, "tiny", bad)
    monkeypatch.setattr(packages, "_download", lambda package, folder: wheel)
    with pytest.raises(UserError, match="wrong sha256"):
        packages.fetch("tiny")


def test_damaged_archive_is_fetched_again(wheel, capsys):
    packages.fetch("tiny").write_bytes(b"damaged")
    assert packages.fetch("tiny").read_bytes() == wheel.read_bytes()
    assert "is damaged; fetching it again" in capsys.readouterr().err


def test_members(wheel, monkeypatch):
    shallow, deep = packages.members("tiny")
    assert (shallow.read_text(), deep.read_text()) == ("shallow", "deep")
    shallow.write_text("damaged")
    assert packages.member("tiny", "tiny/a.txt").read_text() == "shallow"
    packages.fetch("tiny").unlink()
    monkeypatch.setattr(packages, "_download", no_client)
    assert packages.members("tiny")[1].read_text() == "deep"


def test_two_at_once_download_once(wheel, monkeypatch):
    calls = []

    def slow(package, folder):
        calls.append(package)
        time.sleep(0.2)
        (folder / "copy").write_bytes(wheel.read_bytes())
        return folder / "copy"

    monkeypatch.setattr(packages, "_download", slow)
    with ThreadPoolExecutor() as pool:
        paths = set(pool.map(packages.fetch, ["tiny"] * 4))
    assert (len(paths), len(calls)) == (1, 1)


def test_fetch_errors(wheel, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no package 'tinny'; the nearest is 'tiny'"):
        packages.fetch("tinny")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match="reachable. ERROR: Could not find .*lmlite-tiny==1.0"):
        packages.fetch("tiny")
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="ensurepip"):
        packages.fetch("tiny")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LMLITE_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(UserError, match="set LMLITE_CACHE"):
        packages.fetch("tiny")


# Sources -------------------------------------------------------------------------------------


def test_files(tmp_path):
    text = 'text,label\n"one, two",a\nthree,b\n'
    rows = [{"text": "one, two", "label": "a"}, {"text": "three", "label": "b"}]
    (tmp_path / "a.csv").write_text("\ufeff" + text, encoding="utf-8")
    (tmp_path / "wide.csv").write_text("text,label,,\na,b,,\n")  # as a spreadsheet leaves it
    assert sources.read(f"csv:{tmp_path}/wide.csv")[0]["label"] == "b"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(lines.encode()))
    for source in ("csv:{}/a.csv", "csv:{}/a.csv.gz", "jsonl:{}/a.jsonl", "jsonl:{}/a.jsonl.bz2"):
        assert sources.read(source.format(tmp_path)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "cannot read .*a.csv: No such file"),
        ("a.csv", b"", "is empty; it needs at least one row"),
        ("a.csv", b"text,label\n", "is empty; it needs at least one row"),
        ("a.csv", b"text,label\na,b\nc\n", "a.csv:3: the row does not fit columns text, label"),
        ("a.csv", b"text,label\na,b,c\n", "a.csv:2: the row does not fit columns text, label"),
        ("a.csv", b"text,text,label\na,b,c\n", "a.csv: 'text' names two columns; rename one"),
        ("a.csv", b"text,,\na,b\n", "a.csv:2: the row does not fit columns text, , "),
        ("a.csv", b'text,label\na,b\n"c"d,e\n', "a.csv:3: ',' expected after"),
        ("a.csv", b"text,label\n\xff,b\n", "cannot read .*a.csv: .*utf-8"),
        ("a.csv.gz", b"text,label\na,b\n", "cannot read .*a.csv.gz: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text,label\na,b\n", mtime=0)[:-4], "a.csv.gz: .*ended"),
        ("a.jsonl", b'{"text": 1}\n\n{"text": \n', "a.jsonl:3: not JSON"),
        ("a.jsonl", b"[1]\n", r"a.jsonl:1: not a JSON object but \[1\]"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        sources.read(f"{'jsonl' if 'jsonl' in name else 'csv'}:{tmp_path / name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("xlsx:a", "name one of tfds:..., package:..., csv:..., jsonl:..."),
        ("csv:", "there is no source 'csv:'"),
        ("package:rotten_tomato", "the nearest is package:rotten_tomatoes"),
        ("tfds:imdb_review", "the nearest is 'imdb_reviews'"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(UserError, match=message) as error:
        sources.read(source)
    assert "\n" not in str(error.value)


def test_rotten_tomatoes(monkeypatch):
    """The real archive (9 MB), from the cache or its registry, through its TFDS builder."""
    rows = sources.read("package:rotten_tomatoes")
    assert Counter(row["category"] for row in rows) == {"fresh": 7368, "rotten": 5384}
    assert len({row["movie_name"] for row in rows}) == 507
    assert len({row["text"] for row in rows}) == len(rows)
    assert rows[0] == {
        "id": "1097",
        "text": "A three-hour cinema master class.",
        "category": "fresh",
        "movie_name": "a_grin_without_a_cat",
    }
    # The files it prepared are an ordinary TFDS data set.
    monkeypatch.setenv("TFDS_DATA_DIR", str(packages.cache_dir() / "tfds"))
    assert sources.read("tfds:rotten_tomatoes:train[:10]") == rows[:10]
    with pytest.raises(UserError, match="cannot read split 'test' of tfds:rotten_tomatoes"):
        sources.read("tfds:rotten_tomatoes:test")


def test_two_readers_prepare_once(monkeypatch, tmp_path, capsys):
    archive = packages.fetch("rotten_tomatoes")
    (tmp_path / "archives").mkdir()
    shutil.copy(archive, tmp_path / "archives")
    monkeypatch.setenv("LMLITE_CACHE", str(tmp_path))
    with ThreadPoolExecutor() as pool:
        one, two = pool.map(sources.read, ["package:rotten_tomatoes"] * 2)
    assert one == two
    assert capsys.readouterr().err.count("preparing package:rotten_tomatoes ...") == 1


def test_failing_preparation_is_one_line(monkeypatch, tmp_path):
    def fail(builder, source):
        raise ValueError("first\nsecond")

    monkeypatch.setenv("LMLITE_CACHE", str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="logiqa: first$"):
        patch.setattr(sources, "_prepare", fail)
        sources.read("package:logiqa")

    from tensorflow_datasets.core.download import downloader

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(downloader, "MAX_RETRIES", 0)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot prepare tfds:imdb_reviews: ") as error:
        sources.read("tfds:imdb_reviews:train")
    assert "\n" not in str(error.value)


# Splits --------------------------------------------------------------------------------------

FRACTIONS = (("train", 0.6), ("dev", 0.1), ("test", 0.3))


def test_fractions_of_groups():
    groups = [f"group {i}" for i in range(5000)]
    counts = Counter(split_of(group, FRACTIONS) for group in groups)
    for split, fraction in FRACTIONS:
        assert counts[split] / 5000 == pytest.approx(fraction, abs=0.03)
    assert [split_of(g, FRACTIONS) for g in groups] != [split_of(g, FRACTIONS, 1) for g in groups]


def examples(n, classes=2):
    return [Example(str(i), f"text {i}", ("a", "b"), i % 7 % classes, "") for i in range(n)]


@pytest.mark.parametrize("n", [0, 1, 4, 16, 41])
def test_sample(n):
    items = examples(100, classes=3)
    drawn = sample(items, n, seed=3)
    assert len(set(drawn)) == n
    assert drawn == sample(items[::-1], n, seed=3)
    assert set(drawn) <= set(sample(items, n + 5, seed=3))
    counts = [sum(example.target == target for example in drawn) for target in range(3)]
    assert max(counts) - min(counts) <= 1
    assert n < 4 or drawn != sample(items, n, seed=4)


def test_sample_of_rare_classes_and_of_none():
    items = [Example(str(i), "", ("a", "b"), int(i < 3), "") for i in range(50)]
    assert Counter(e.target for e in sample(items, 20, 0)) == {1: 3, 0: 17}
    assert sum(e.target for e in sample(items, 6, 0, balanced=False)) < 3
    with pytest.raises(UserError, match="51 labelled examples are asked for and the split has 50"):
        sample(items, 51, 0)


@pytest.mark.parametrize("rare", [2, 9])
def test_what_is_held_out_has_every_class(rare):
    """Where one class is rare it is drawn late, and the end of the draw has hardly another."""
    items = [Example(str(i), "", ("a", "b"), int(i % rare == 0), "") for i in range(900)]
    drawn = sample(items, 64, 0)
    train, dev = held_out(drawn, 0.25)
    assert Counter(e.target for e in train) == {0: 24, 1: 24}
    assert Counter(e.target for e in dev) == {0: 8, 1: 8}
    assert sorted((*train, *dev), key=drawn.index) == list(drawn)


def test_what_is_held_out_of_many_classes_and_of_texts():
    items = [Example(str(i), "", (), i % 3, "") for i in range(5)]  # targets 0 1 2 0 1
    assert [len(part) for part in held_out(items, 0.25)] == [3, 2]
    assert {e.target for e in held_out(items, 0.25)[0]} == {0, 1, 2}
    texts = [Example(str(i), "", (), f"text {i}", "") for i in range(8)]
    assert held_out(texts, 0.25) == (tuple(texts[:6]), tuple(texts[6:]))
    assert held_out(texts, 0.0) == (tuple(texts), ())


# Tasks ---------------------------------------------------------------------------------------

FILMS = [
    {
        "n": f"r{i}",
        "text": f"text {i} {{x}}",
        "film": f"film {i % 40}",
        "verdict": "good" if i % 3 else "bad",
    }
    for i in range(200)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def config(tmp_path):
    write(tmp_path / "all.jsonl", FILMS)
    return ConfigDict(
        dict(
            source=f"jsonl:{tmp_path}/all.jsonl",
            template="Review: {text}\nSentiment:",
            label="verdict",
            labels=("bad", "good"),
            ignore_labels=(),
            choices=("negative", "positive"),
            choices_columns=(),
            group="film",
            id="n",
            limit=0,
            split=FRACTIONS,
            fewshot_delimiter="\n\n",
            target_delimiter=" ",
            description="",
            chunk=0,
            chat=False,
            metrics=(),
            generation=dict(max_new_tokens=0),
            tests="",
            entry_point="",
            run_code=False,
        )
    ).lock()


def changed(config, **fields):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for field, value in fields.items():
            setattr(config, field, value)
    return config


def everything(task):
    return task.train + task.dev + task.test


def test_task(config, tmp_path):
    task = load_task(config)
    assert task.choices == ("negative", "positive")
    assert {e.id for e in everything(task)} == {row["n"] for row in FILMS}
    example = next(e for e in everything(task) if e.id == "r4")
    prompt = "Review: text 4 {x}\nSentiment:"
    assert example == Example("r4", prompt, ("negative", "positive"), 1, "film 4")
    groups = [{e.group for e in split} for split in (task.train, task.dev, task.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    write(tmp_path / "all.jsonl", FILMS[::-1])
    again = load_task(config)
    for split in ("train", "dev", "test"):
        assert set(getattr(task, split)) == set(getattr(again, split))


def test_limit_keeps_each_row_in_its_split(config):
    config = changed(config, group="")
    task, few = load_task(config), load_task(changed(config, limit=60))
    assert len(everything(few)) == 60
    for split in ("train", "dev", "test"):
        assert 0 < len(getattr(few, split)) < len(getattr(task, split))
        assert set(getattr(few, split)) < set(getattr(task, split))


def test_rows_without_an_id_are_numbered(config):
    task = load_task(changed(config, id="", group=""))
    assert {(e.id, e.group) for e in everything(task)} == {(str(i), str(i)) for i in range(200)}


def test_ignored_labels(config):
    config = changed(config, labels=("good", "other"), ignore_labels=("bad",))
    with pytest.raises(UserError, match="training rows of .* are 'good'; .* at least two classes"):
        load_task(config)


def test_generation(config):
    task = load_task(changed(config, label="film", labels=(), choices=()))
    example = next(e for e in everything(task) if e.id == "r4")
    assert (example.choices, example.target, task.choices) == ((), "film 4", ())


@pytest.mark.parametrize("labels", [("A", "B"), ()])
def test_own_choices(config, tmp_path, labels):
    rows = [
        dict(n=i, q=f"q{i}", a=f"a{i}", b=f"b{i}", right=labels[i % 2] if labels else i % 2)
        for i in range(50)
    ]
    write(tmp_path / "all.jsonl", rows)
    own = dict(choices=(), choices_columns=("a", "b"), label="right", labels=labels, group="")
    task = load_task(changed(config, template="{q}", **own))
    example = next(e for e in everything(task) if e.id == "5")
    assert task.choices == ()
    assert example == Example("5", "q5", ("a5", "b5"), 1, "5")
    for bad in ("2", "-1", "C"):
        rows[7]["right"] = bad
        write(tmp_path / "all.jsonl", rows)
        with pytest.raises(UserError, match=f"label '{bad}' of row 7 .*column 'right'"):
            load_task(changed(config, template="{q}", **own))


def test_splits_of_the_source(config, tmp_path):
    for name, rows in {"fit": FILMS[:120], "val": FILMS[120:130], "test": FILMS[130:]}.items():
        write(tmp_path / f"{name}.jsonl", rows)
    split = (("train", "fit"), ("dev", "val"), ("test", "test"))
    config = changed(config, source=f"jsonl:{tmp_path}/{{split}}.jsonl", split=split, group="")
    task = load_task(config)
    assert [len(task.train), len(task.dev), len(task.test)] == [120, 10, 70]
    with pytest.raises(UserError, match="'film .*' is in both train and dev"):
        load_task(changed(config, group="film"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(template="{txt}"), "task.template: there is no column 'txt'; .*'text' of n, text"),
        (dict(template="{text"), "task.template='{text' cannot be filled in"),
        (dict(template="{text.x}"), "task.template: there is no 'text.x' in the row"),
        (dict(label="verdicts"), "task.label: there is no column 'verdicts'; .* 'verdict'"),
        (dict(group="movie"), "task.group: there is no column 'movie'"),
        (dict(id="m"), "task.id: there is no column 'm'"),
        (dict(id="film"), "5 rows of .* share the id 'film 0'"),
        (dict(labels=("bad", "fine")), "label 'good' of row r1 .*column 'verdict'.* bad, fine"),
        (dict(labels=("bad",)), "task.choices=.* as many as task.labels"),
        (dict(choices_columns=("text", "film")), "both given; set one to"),
        (dict(labels=(0, 1)), "label 'bad' of row r0 .* 0, 1; add it"),
        (dict(choices=("x", "x")), "task.choices=.* all different"),
        (dict(choices=("x", " ")), "task.choices=.* number 1 has no text"),
        (dict(split=(("train", 0.7), ("dev", 0.3))), "task.split names train, dev; .* and test"),
        (dict(split=(("train", 0.7), ("dev", 0.0), ("test", 0.3))), "positive fractions"),
        (dict(split=(("train", 0.7), ("dev", 0.1), ("test", 0.3))), "sum to 1"),
        (dict(split=(("train", "a"), ("dev", "b"), ("test", "c"))), "does not fit task.source"),
        (dict(split=(("train", "a"), ("dev", 0.5), ("test", 0.5))), "does not fit task.source"),
        (dict(limit=2), "the (train|dev|test) split of .* is empty"),
    ],
)
def test_bad_tasks(config, fields, message):
    with pytest.raises(UserError, match=message) as error:
        load_task(changed(config, **fields))
    assert "\n" not in str(error.value)


def test_labels_without_choices_are_the_choices(config):
    named, itself = (load_task(changed(config, choices=c)) for c in (("bad", "good"), ()))
    assert itself.choices == named.choices and itself.train == named.train


@pytest.mark.parametrize("empty", [None, float("nan")])
@pytest.mark.parametrize("column", ["text", "verdict"])
def test_empty_cells_are_refused(config, tmp_path, column, empty):
    """Not the word None, in a prompt or as an answer."""
    write(tmp_path / "all.jsonl", [*FILMS[:-1], FILMS[-1] | {column: empty}])
    with pytest.raises(UserError, match=f"column {column!r} is empty .*'n': 'r199'.*; fill it"):
        load_task(config)
    if column == "verdict":
        left_out = load_task(changed(config, ignore_labels=(str(empty),)))
        assert len(everything(left_out)) == len(FILMS) - 1


def test_empty_texts_are_refused_as_choices_and_answers(config, tmp_path):
    """A choice of nothing would be scored as what stands before it; a column may be empty."""
    write(tmp_path / "all.jsonl", [*FILMS[:-1], FILMS[-1] | {"text": ""}])
    assert any(e.prompt == config.template.format(text="") for e in everything(load_task(config)))
    write(tmp_path / "all.jsonl", [*FILMS[:-1], FILMS[-1] | {"verdict": " "}])
    with pytest.raises(UserError, match="task.label: column 'verdict' is empty .*fill it"):
        load_task(changed(config, labels=(), choices=()))
    rows = [{"q": f"q{i}", "a": "x", "b": "y" if i else "", "right": i % 2} for i in range(30)]
    write(tmp_path / "all.jsonl", rows)
    own = dict(template="{q}", choices_columns=("a", "b"), choices=(), labels=(), label="right")
    with pytest.raises(UserError, match="task.choices_columns: column 'b' is empty"):
        load_task(changed(config, **own, id="q", group=""))


def test_places_in_a_column(config, tmp_path):
    """SQuAD's form, in which every answer of the list is right."""
    rows = [
        {"q": {"text": f"q{i}?"}, "answers": {"text": [f"a{i}", "b", "b"], "at": [0, 1, 1]}}
        for i in range(30)
    ]
    write(tmp_path / "all.jsonl", rows)
    own = dict(choices=(), labels=(), id="", group="", template="{q[text]}")
    squad = changed(config, **own, label="answers[text]")
    examples = everything(load_task(squad))
    assert all(e.further == ("b",) and e.target == "a" + e.prompt[1:-1] for e in examples)
    with pytest.raises(UserError, match="task.label: there is no 'answers.words.' in the row"):
        load_task(changed(squad, label="answers[words]"))
    for wrong, told in ({"text": None}, "column 'q.text.' is empty"), ({}, "no 'q.text.' in"):
        write(tmp_path / "all.jsonl", [*rows[:-1], rows[-1] | {"q": wrong}])
        with pytest.raises(UserError, match=told):
            load_task(squad)
    write(tmp_path / "all.jsonl", [*rows[:-1], rows[-1] | {"answers": {"text": []}}])
    with pytest.raises(UserError, match="task.label: column 'answers.text.' is empty"):
        load_task(squad)


def test_no_development_split_is_needed(config, tmp_path):
    halves = load_task(changed(config, split=(("train", 0.5), ("test", 0.5))))
    assert halves.train and halves.test and halves.dev == ()
    none = (("train", 0.5), ("dev", 1e-9), ("test", 0.5 - 1e-9))  # as hashes of a few rows fall
    assert load_task(changed(config, split=none)).dev == ()


@pytest.mark.parametrize(
    "line", ['{"text": "\\ud83d", "n": 1}', "[" * 100_000, '{"n": ' + "1" * 5000 + "}"]
)
def test_json_that_is_no_text(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d\\ude00", "n": 1}\n' + line + "\n")
    with pytest.raises(UserError, match="a.jsonl:2: not JSON") as error:
        sources.read(f"jsonl:{path}")
    assert "\n" not in str(error.value)


def test_rows_that_ask_the_same_are_in_one_split(config, tmp_path):
    again = [row | {"n": f"again {row['n']}"} for row in FILMS]
    before = load_task(changed(config, group=""))
    write(tmp_path / "all.jsonl", [*FILMS, *again])
    task = load_task(changed(config, group=""))
    for split in ("train", "dev", "test"):
        prompts = {e.prompt for e in getattr(before, split)}
        assert prompts == {e.prompt for e in getattr(task, split)}
        assert len(getattr(task, split)) == 2 * len(getattr(before, split))
    few = load_task(changed(config, group="", limit=150))
    for split in ("train", "dev", "test"):
        assert set(getattr(few, split)) < set(getattr(task, split))


def test_choices_may_be_numbers(config):
    task = load_task(changed(config, choices=(1, 5)))
    assert task.choices == ("1", "5") == task.test[0].choices and task.test[0].answer in "15"


def test_more_passes_than_samples_are_not_estimated(config):
    written = dict(max_new_tokens=9, samples=4)
    given = dict(choices=(), labels=(), run_code=True, generation=ConfigDict(written))
    assert load_task(changed(config, **given, metrics=("pass@1",))).metrics == ("pass@1",)
    with pytest.raises(UserError, match="'pass@5', .* task.generation.samples=4; raise it"):
        load_task(changed(config, **given, metrics=("pass@1", "pass@5")))


def test_a_label_of_the_test_split_alone(config, tmp_path):
    """'odd' is in the films of one split only, by whichever way it is listed."""
    split = {row["film"]: split_of(row["film"], FRACTIONS) for row in FILMS}

    def rows(only, odd):
        return [
            {**row, "verdict": odd if split[row["film"]] in only and i % 5 == 0 else row["verdict"]}
            for i, row in enumerate(FILMS)
        ]

    three = dict(labels=("bad", "good", "odd"), choices=("no", "yes", "so"))
    write(tmp_path / "all.jsonl", rows(("test",), "odd"))
    with pytest.raises(UserError) as error:
        load_task(changed(config, **three))
    assert re.fullmatch(
        r"label 'odd' \(1 such\) is in \d+ test rows of .* no training row; list it in "
        r"task.ignore_labels, or change task.split, or raise task.limit",
        str(error.value),
    )
    load_task(changed(config, **three, ignore_labels=("odd",)))
    write(tmp_path / "all.jsonl", rows(("test", "train"), "odd"))
    load_task(changed(config, **three))
    write(tmp_path / "all.jsonl", rows(("dev",), "odd"))  # nobody is asked for it
    load_task(changed(config, **three))


def test_one_class(config, tmp_path):
    write(tmp_path / "all.jsonl", [row for row in FILMS if row["verdict"] == "good"])
    with pytest.raises(UserError, match="all .* training rows of .* are 'good'"):
        load_task(config)
