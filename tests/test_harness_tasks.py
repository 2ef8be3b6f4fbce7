"""Task files of lm-evaluation-harness, against what its own `ConfigurableTask` makes of them."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_lm import tiny_lm

from configs import common
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.config import override
from lmlite.data.harness import load_yaml_task
from lmlite.data.task import Example, Task
from lmlite.data.tasks import load_task
from lmlite.errors import UserError
from lmlite.icl.prompts import delimiter, prompt
from lmlite.icl.write import compared, extracted, voted
from lmlite.metrics.kinds import Choices, Texts
from lmlite.metrics.measures import MEASURES

FRACTIONS = (("train", 0.6), ("dev", 0.1), ("test", 0.3))
WORDS = ("red", "green", "blue")


def rows(n: int, shift: int = 0) -> list[dict]:
    """Rows of the columns that the cases below name."""
    return [
        {
            "question": f"What is {i}? ",
            "passage": f"  It's {WORDS[i % 3]} {i}",
            "label": i % 3,
            "letter": "ABC"[i % 3],
            "word": WORDS[i % 3],
            "digit": "341"[i % 3],
            "options": [f"{w} {i}" for w in WORDS],
            "choices": {"text": [f"{w}-{i}" for w in WORDS], "label": ["A", "B", "C"]},
            "answer": f"{i} and 1 make {i + 1}\n#### 1,{i:03d}.",
            "score": i / 2,
        }
        for i in range(shift, shift + n)
    ]


BASE = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "data/train.jsonl", "test": "data/test.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "fewshot_config": {"sampler": "first_n"},
    "doc_to_text": "Q: {{question}}\nA:",
    "output_type": "multiple_choice",
}
LETTERS = ["A", "B", "C"]
CASES = {
    "fixed choices, the index a column": dict(doc_to_target="label", doc_to_choice=[*WORDS]),
    "the index a template": dict(
        doc_to_target="{{choices.label.index(letter)}}", doc_to_choice="{{choices.text}}"
    ),
    "the text a column": dict(doc_to_target="word", doc_to_choice=[*WORDS]),
    "a digit that is a text": dict(doc_to_target="digit", doc_to_choice=["3", "4", "1"]),
    "a digit that is an index": dict(doc_to_target="{{label}}", doc_to_choice=["3", "1", "0"]),
    "choices a column": dict(doc_to_target="label", doc_to_choice="options"),
    "choices by name": dict(doc_to_target="letter", doc_to_choice=dict(zip("abc", "ABC"))),  # noqa: B905
    "a letter of the csv": dict(doc_to_target="{{'ABC'.index(letter)}}", doc_to_choice=LETTERS),
    "always the last": dict(doc_to_target=2, doc_to_choice="{{[word ~ 1, word ~ 2, passage]}}"),
    "white space": dict(
        doc_to_text="{{passage.lstrip()}} Answer: ",
        doc_to_target="label",
        doc_to_choice=[*WORDS],
        target_delimiter="",
        fewshot_delimiter="\n--\n",
        description="Colours.\n\n",
    ),
    "the prompt a column": dict(
        doc_to_text="question", doc_to_target="word", doc_to_choice=[*WORDS]
    ),
    "loglikelihood": dict(
        output_type="loglikelihood",
        doc_to_text="{{passage.split(' ')[:-1]|join(' ')}}",
        doc_to_target="{{' ' + passage.split(' ')[-1]}}",
    ),
    "rolling": dict(
        output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{passage}}\n"
    ),
    "generate": dict(output_type="generate_until", doc_to_target="{{word}}{{score}}"),
    "generate a choice": dict(
        output_type="generate_until",
        doc_to_target="label",
        doc_to_choice=[*WORDS],
        generation_kwargs={"max_gen_toks": 7, "until": ["\n", "Q:"], "do_sample": False},
        doc_to_text="{{question|regex_replace('[0-9]', '#')}}",
    ),
}


def write(folder: Path, fields: dict, kind: str = "json") -> Path:
    """A task file with its data."""
    (folder / "data").mkdir(exist_ok=True)
    files = {}
    for split, own in {"train": rows(9), "test": rows(6, 20)}.items():
        files[split] = f"data/{split}.{kind}"
        write_rows(folder / files[split], own, kind)
    fields = {**fields, "dataset_path": kind, "dataset_kwargs": {"data_files": files}}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    return path


def write_rows(path: Path, own: list[dict], kind: str) -> None:
    if kind == "csv":
        import csv

        flat = [{k: v for k, v in row.items() if not isinstance(v, list | dict)} for row in own]
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, flat[0])
            writer.writeheader()
            writer.writerows(flat)
    elif kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(own), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in own))


def theirs_of(path: Path, monkeypatch):
    """lm_eval's task of the same file; it looks for data from the working directory."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    monkeypatch.chdir(path.parent)
    fields = load_yaml(path)
    fields["dataset_kwargs"]["cache_dir"] = str(path.parent / "cache")
    return ConfigurableTask(config=fields)


def context(task: Task, shots: int, example: Example) -> str:
    return prompt(None, task, task.train[:shots], example.prompt)


def assert_same(task: Task, theirs, shots=(0, 3)) -> None:
    docs = list(theirs.eval_docs)
    assert len(docs) == len(task.test) and len(task.train) >= 3
    for example, doc in zip(task.test, docs, strict=True):
        for k in shots:
            assert_same_item(task, theirs, context(task, k, example), example, doc, k)


def assert_same_item(task: Task, theirs, text: str, example: Example, doc: dict, k: int) -> None:
    made = theirs.construct_requests(doc, theirs.fewshot_context(doc, k), metadata=("", 0, 1))
    if theirs.OUTPUT_TYPE == "multiple_choice":
        ours = [(text, delimiter(task) + choice) for choice in example.choices]
        assert ours == [request.args for request in made]
        likely = [(0.0 if c == example.target else -1.0, False) for c in range(len(ours))]
        assert theirs.process_results(doc, likely)["acc"] == 1.0
    elif theirs.OUTPUT_TYPE == "loglikelihood":
        assert made.args == (text, delimiter(task) + example.target)
    elif theirs.OUTPUT_TYPE == "loglikelihood_rolling":
        assert made.args == (example.prompt + delimiter(task) + example.target,)
    else:
        their_context, options = made.args
        assert their_context == text
        assert tuple(options["until"]) == task.generation.stop
        assert options.get("max_gen_toks", 256) == task.generation.max_new_tokens
        assert theirs.process_results(doc, [example.target])["exact_match"] == 1.0


@pytest.mark.parametrize("case", CASES)
def test_prompts_choices_and_answers_are_those_of_lm_eval(case, tmp_path, monkeypatch):
    fields = BASE | CASES[case]
    path = write(tmp_path, fields, "csv" if "csv" in case else "json")
    task = load_yaml_task(str(path), FRACTIONS)
    rolling = fields["output_type"] == "loglikelihood_rolling"
    assert_same(task, theirs_of(path, monkeypatch), shots=(0,) if rolling else (0, 3))
    assert task.metrics == {
        "multiple_choice": ("accuracy", "acc_norm"),
        "loglikelihood": ("perplexity", "greedy_accuracy"),
        "loglikelihood_rolling": ("bits_per_byte", "byte_perplexity", "word_perplexity"),
        "generate_until": ("exact_match",),
    }[fields["output_type"]]


@pytest.mark.parametrize("case", CASES)
def test_the_aggregations_of_lm_eval_may_be_spelled_out(case, tmp_path):
    """As some of its own files do."""
    from lm_eval.api.registry import get_metric_aggregation

    named = {"bits_per_byte": "bits_per_byte", "byte_perplexity": "weighted_perplexity",
             "word_perplexity": "weighted_perplexity", "perplexity": "perplexity"}  # fmt: skip
    listed = {
        "multiple_choice": ["acc", "acc_norm", "mcc", "f1", "brier_score"],
        "loglikelihood": ["perplexity", "acc"],
        "loglikelihood_rolling": ["bits_per_byte", "byte_perplexity", "word_perplexity"],
        "generate_until": ["exact_match", "bleu", "chrf", "ter"],
    }[CASES[case].get("output_type", BASE.get("output_type"))]
    known = {"mcc": "matthews_corrcoef"}
    usual = {n: n for n in ("f1", "brier_score", "bleu", "chrf", "ter")} | known | named
    metric_list = [{"metric": n, "aggregation": usual.get(n, "mean")} for n in listed]
    for one in metric_list:
        expected = get_metric_aggregation(one["metric"]).__name__
        assert expected == "mean" or one["aggregation"] != "mean"
    path = write(tmp_path, BASE | CASES[case] | {"metric_list": metric_list})
    assert len(load_yaml_task(str(path), FRACTIONS).metrics) == len(listed)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_have_the_types_of_the_package_datasets(kind, tmp_path, monkeypatch):
    """Numbers are numbers, and what a csv leaves out is None."""
    fields = BASE | dict(
        doc_to_text="{{label + 1}} {{score * 2}} {{digit}} {{maybe}} {{yes}} {{word}}",
        doc_to_target="label",
        doc_to_choice=[*WORDS],
    )
    monkeypatch.setattr(
        f"{__name__}.rows",
        lambda n, shift=0, made=rows: [
            {
                **row,
                "maybe": None if i % 2 else i,
                "yes": i == 1,
                "word": "NA" if i == 2 else row["word"],
            }
            for i, row in enumerate(made(n, shift))
        ],
    )
    path = write(tmp_path, fields, kind)
    task = load_yaml_task(str(path), FRACTIONS)
    assert_same(task, theirs_of(path, monkeypatch))


# Files of lm_eval's own, the columns they read, and what its data hold there.
REAL = {
    "super_glue/boolq/default": lambda i: dict(
        passage=f"P {i}", question=f"is it {i}", label=i % 2
    ),
    "arc/arc_easy": lambda i: dict(
        question=f"Which {i}?",
        choices={"text": [f"{w} {i}" for w in "wxyz"], "label": ["1", "2", "3", "4"]},
        answerKey=str(1 + i % 4),
    ),
    "sciq/sciq": lambda i: dict(
        support=f" S {i}",
        question=f"Q {i}?",
        correct_answer=f"c{i}",
        distractor1="a",
        distractor2="b",
        distractor3="d",
    ),
    "lambada/lambada_openai": lambda i: dict(text=f"It was {i} o'clock and so they {WORDS[i % 3]}"),
    "gsm8k/gsm8k": lambda i: dict(question=f"How many {i}?", answer=f"{i} + 1\n#### {1000 + i:,}"),
    "openbookqa/openbookqa": lambda i: dict(
        question_stem=f"The {i}",
        answerKey="ABCD"[i % 4],
        choices={"text": [f"{w} {i}" for w in "wxyz"], "label": ["A", "B", "C", "D"]},
    ),
}


def real(name: str) -> str:
    lm_eval = pytest.importorskip("lm_eval")
    return (Path(lm_eval.__file__).parent / "tasks" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", REAL)
def test_its_own_files_with_local_data(name, tmp_path, monkeypatch):
    splits = {"train": 0, "validation": 20, "test": 40}
    for split, shift in splits.items():
        write_rows(tmp_path / f"{split}.jsonl", [REAL[name](shift + i) for i in range(8)], "json")
    files = {split: f"{split}.jsonl" for split in splits}
    local = f"dataset_path: json\ndataset_kwargs: {json.dumps({'data_files': files})}"
    path = tmp_path / "task.yaml"
    path.write_text(re.sub("dataset_path: .*", local, real(name)))
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    if name.startswith("lambada"):  # of its one split, lmlite makes three by hash
        docs = {theirs.doc_to_text(d): theirs.doc_to_target(d) for d in theirs.eval_docs}
        found = task.train + task.dev + task.test
        assert docs == {e.prompt: e.target for e in found} and len(found) == 8
        assert task.metrics == ("perplexity", "greedy_accuracy")
        return
    theirs.sampler = type(
        "First", (), {"sample": lambda self, n, eval_doc: theirs_first(theirs, n)}
    )()
    assert_same(task, theirs)


def theirs_first(theirs, n: int) -> list[dict]:
    return list(theirs.fewshot_docs())[:n]


def test_answers_are_found_and_compared_as_by_lm_eval(tmp_path, monkeypatch):
    """GSM8K's first filter, and its exact_match."""
    path = tmp_path / "task.yaml"
    write_rows(tmp_path / "test.jsonl", [REAL["gsm8k/gsm8k"](i) for i in range(12)], "json")
    kwargs = json.dumps({"data_files": {"test": "test.jsonl"}})
    text = re.sub(
        "dataset_path: .*", f"dataset_path: json\ndataset_kwargs: {kwargs}", real("gsm8k/gsm8k")
    )
    path.write_text(re.sub("(training|fewshot)_split: .*\n", "", text))
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    doc = theirs.eval_docs[0]
    (example,) = [e for e in task.train + task.dev + task.test if e.id == "test-0"]
    verdicts = []
    for said in (
        "so #### 1,000",
        "#### 1000. #### 7",
        "#### 7 #### 1000",
        "1000",
        "#### $1000",
        "",
    ):
        (strict,) = theirs._filters[0].filters[0]().apply([[said]], [doc])
        right = theirs.process_results(doc, [strict[0]])["exact_match"]
        found = compared(voted([said], task.generation), task.generation)
        ours = found == compared(example.target, task.generation)
        assert ours == bool(right), said
        verdicts.append(ours)
    assert verdicts == [True, True, False, False, False, False]


def test_the_demonstrations_that_a_file_asks_for(tmp_path):
    asked = BASE | FIXED | {"num_fewshot": 2}
    task = load_yaml_task(str(write(tmp_path, asked)), FRACTIONS)
    assert (task.shots, task.choose) == (2, "first")
    task = load_yaml_task(str(write(tmp_path, asked | {"fewshot_config": {}})), FRACTIONS)
    assert (task.shots, task.choose) == (2, "random")


def test_demonstrations_of_a_split_of_their_own(tmp_path, monkeypatch):
    """Beside a training split, which tuning learns from: `fewshot_split` is what lm_eval shows."""
    path = write(tmp_path, BASE | FIXED | {"num_fewshot": 2, "fewshot_split": "few"})
    fields = yaml.safe_load(path.read_text())
    fields["dataset_kwargs"]["data_files"]["few"] = "data/few.json"
    write_rows(tmp_path / "data/few.json", rows(4, 60), "json")
    path.write_text(yaml.safe_dump(fields))
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    assert [e.id for e in task.train] == [f"train-{i}" for i in range(9)]
    assert [e.id for e in task.shown] == [f"few-{i}" for i in range(4)]
    lm, data = tiny_lm(layers=1), Labelled(task.train, ())
    predictor = InContext(-1, readings=()).fit(lm, task, data, 0, Log())
    wanted = theirs.fewshot_context(theirs.eval_docs[0], 2)
    assert predictor.prompts(task.test[:1]) == [wanted] and predictor.cost.examples == 2
    drawn = dataclasses.replace(task, choose="random")
    shown = InContext(-1, readings=()).fit(lm, drawn, data, 0, Log()).prompts.demonstrations
    assert {e.id for e in shown} < {e.id for e in task.shown}


def test_any_of_several_right_answers(tmp_path, monkeypatch):
    path = write(tmp_path, BASE | CASES["generate"] | dict(doc_to_target="options"))
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    measure = MEASURES["exact_match"]
    assert task.metrics == ("exact_match",)
    for example, doc in zip(task.test, theirs.eval_docs, strict=True):
        assert prompt(None, task, task.train[:1], example.prompt) == theirs.fewshot_context(doc, 1)
        for said in (*doc["options"], "none", ""):
            (right,) = theirs.process_results(doc, [said]).values()
            answers = Texts([said], [example.target], further=[example.further])
            assert measure.value(answers) == right


def test_splits_that_a_file_does_not_name(tmp_path):
    path = write(tmp_path, BASE | CASES["choices a column"])
    both = load_yaml_task(str(path), FRACTIONS)
    assert (len(both.train), len(both.dev), len(both.test)) == (9, 0, 6)
    text = path.read_text()
    path.write_text(text.replace("training_split: train", "validation_split: train"))
    assert load_yaml_task(str(path), FRACTIONS) == both
    path.write_text(
        text.replace("training_split: train\n", "").replace("_split: test", "_split: train")
    )
    alone = load_yaml_task(str(path), (("train", 0.5), ("dev", 0.2), ("test", 0.3)))
    ids = [{e.id for e in part} for part in (alone.train, alone.dev, alone.test)]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 9


def test_a_folder_and_an_included_file(tmp_path):
    path = write(tmp_path, BASE | CASES["the text a column"])
    base = path.rename(tmp_path / "base.yaml")
    base.write_text(re.sub(r"dataset_kwargs:(\n .*)+", "", base.read_text()))
    (tmp_path / "data/train.json").rename(tmp_path / "data/train.jsonl")
    path.write_text("include: base.yaml\ndataset_path: data\ntask: other\n")
    task = load_yaml_task(str(path), FRACTIONS)
    assert (task.name, len(task.test), task.choices) == ("other", 6, WORDS)


def test_fields_for_calibration(tmp_path):
    path = write(tmp_path, BASE | CASES["the text a column"])
    task = load_yaml_task(str(path), FRACTIONS)
    assert task.content_free[0] == "Q: N/A\nA:" and task.premise == "\nA:"
    path = write(tmp_path, BASE | CASES["the prompt a column"])
    task = load_yaml_task(str(path), FRACTIONS)
    assert task.content_free[0] == "N/A" and task.premise == ""


def test_a_task_config_takes_it(tmp_path):
    path = write(tmp_path, BASE | CASES["generate"])
    config = common.task(f"yaml:{path}")
    assert load_task(config) == load_yaml_task(str(path), FRACTIONS)
    fields = yaml.safe_load(path.read_text()) | dict(metric_list=[{"metric": "no such"}])
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(UserError, match="'no such' is not supported for generate_until; known: "):
        load_task(config)
    config.chat, config.metrics = True, ("exact_match", "f1")
    expected = dict(chat=True, metrics=("exact_match", "f1"))
    found = load_task(config)  # which names its own metrics, whatever the file says
    path.write_text(yaml.safe_dump(fields | dict(metric_list=[])))
    assert found == dataclasses.replace(load_yaml_task(str(path), FRACTIONS), **expected)


@pytest.mark.parametrize(
    "field, value",
    [
        ("limit", 5),
        ("target_delimiter", "->"),
        ("generation.samples", 5),
        ("choices", ("a",)),
        ("template", "{question}"),
        ("label", "word"),
        ("generation.stop", ("x",)),
        ("generation.ignore_case", True),
    ],
)
def test_what_the_file_alone_says_is_not_set_elsewhere(field, value, tmp_path):
    config = common.task(f"yaml:{write(tmp_path, BASE | CASES['generate'])}").lock()
    with pytest.raises(UserError, match=f"task.{field}=.* does nothing for yaml:"):
        load_task(override(config, {field: value}))


@pytest.mark.parametrize(
    "pattern, said",
    [
        (r"(?i)answer is (\w+)", "The ANSWER is Blue."),
        (r"(?s)answer:(.*)end", "answer: a\nb end"),
        (r"answer: (\d+)|none", "none of it"),
        (r"answer: (\d+)|none", "answer: 7"),
    ],
)
@pytest.mark.parametrize("select", [0, -1])
def test_a_regex_finds_what_lm_eval_finds(pattern, said, select, tmp_path):
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    step = dict(function="regex", regex_pattern=pattern, group_select=select)
    fields = BASE | CASES["generate"] | dict(filter_list=[dict(name="a", filter=[step])])
    task = load_yaml_task(str(write(tmp_path, fields)), FRACTIONS)
    theirs = extraction.RegexFilter(pattern, select).apply([[said]], [{}])[0][0]
    assert voted([said], task.generation) == theirs
    found = extracted(said, task.generation.extract)
    assert found == (None if theirs == "[invalid]" else theirs)


FIXED = CASES["the text a column"]


def files(train: str, test: str = "test") -> dict:
    return {"data_files": {"train": f"data/{train}.json", "test": f"data/{test}.json"}}


WRITTEN = dict(output_type="generate_until")
LATE = ("remove_whitespace", "regex")
VOTE = [{"name": "a", "filter": [{"function": "majority_vote"}]}]
BAD = {
    "missing column": (
        dict(doc_to_text="{{a}}"),
        r"doc_to_text='\{\{a\}\}': 'a' is undefined; columns",
    ),
    "broken template": (dict(doc_to_text="{{a"), "doc_to_text='{{a': unexpected end of template"),
    "no answer": (dict(doc_to_target=None), "doc_to_target is missing"),
    "other answer": (dict(doc_to_target="letter"), "gives 'A', which is neither one of the"),
    "several answers": (dict(doc_to_target="options"), "one answer a row is needed"),
    "several inputs": (dict(doc_to_text="{{label}}"), "several inputs"),
    "no list": (dict(doc_to_choice="{{word}}"), "doc_to_choice gives no list of choices but 'red'"),
    "kind": (dict(output_type="chat"), "output_type='chat' is not supported"),
    "no split": (dict(test_split=None), "test_split and validation_split are missing"),
    "other split": (dict(test_split="dev"), "data_files has no split 'dev'; it has test, train"),
    "hub": (dict(dataset_path="a/b"), "dataset_path='a/b' is no local data; write its rows"),
    "prefix": (dict(gen_prefix="So"), "gen_prefix is not supported"),
    "shots": (dict(fewshot_config={"doc_to_text": "x"}), "fewshot_config.doc_to_text is not"),
    "number of shots": (dict(num_fewshot="two"), "num_fewshot='two' is no number of"),
    "sampler": (
        dict(fewshot_config={"sampler": "best"}),
        "fewshot_config.sampler='best' is unknown; known: default, first_n",
    ),
    "group": (dict(task=["a", "b"]), "is a group of tasks"),
    "filter": (WRITTEN | dict(filter_list=VOTE), "function 'majority_vote' is not supported"),
    "sampling": (
        WRITTEN | dict(generation_kwargs={"temperature": 1, "top_k": 3}),
        "generation_kwargs.top_k is not supported",
    ),
    "beams": (
        WRITTEN | dict(generation_kwargs={"do_sample": False, "top_p": 0.9, "num_beams": 4}),
        "generation_kwargs.num_beams is not supported",
    ),
    "no such field": (dict(num_fewshots=3), "no field 'num_fewshots'; the nearest is 'num_few"),
    "configuration": (
        dict(dataset_path="data", dataset_kwargs=None, dataset_name="b"),
        "dataset_name='b' of local data is not read",
    ),
    "option of a filter": (
        WRITTEN | dict(filter_list=[{"filter": [{"function": "regex", "flags": "A"}]}]),
        "filter_list: flags of regex is not supported",
    ),
    "several answers, other metrics": (
        WRITTEN | dict(doc_to_target="options", metric_list=[{"metric": "bleu"}]),
        "'bleu' of rows with several right answers .* set task.metrics",
    ),
    "several texts to score": (
        dict(output_type="loglikelihood", doc_to_target="options", doc_to_choice=None),
        "is several texts, and one is to be scored",
    ),
    "samples": (dict(fewshot_config={"samples": [{}]}), "fewshot_config.samples is not supported"),
    "field of shots": (dict(fewshot_config={"sampelr": "a"}), "fewshot_config.sampelr is not"),
    "shots no mapping": (dict(fewshot_config="first_n"), "'first_n' must be a mapping"),
    "delimiter": (dict(fewshot_delimiter=3), "fewshot_delimiter=3 must be text"),
    "kwargs": (WRITTEN | dict(generation_kwargs=["x"]), r"\['x'\] must be a mapping"),
    "filter no list": (WRITTEN | dict(filter_list="regex"), "filter_list='regex' must be a list"),
    "filter of nothing": (
        WRITTEN | dict(filter_list=[{"filter": [{"regex_pattern": "a"}]}]),
        "has no list `filter` of `function: NAME`",
    ),
    "order of filters": (
        WRITTEN | dict(filter_list=[{"filter": [dict(function=f) for f in LATE]}]),
        "remove_whitespace before regex is not supported; put it after",
    ),
    "length": (WRITTEN | dict(generation_kwargs={"max_gen_toks": "many"}), "'many' is no number"),
    "files": (dict(dataset_kwargs={"data_files": {"train": 3, "test": None}}), "is no file"),
    "nothing to score": (
        dict(output_type="loglikelihood", doc_to_target="{{''}}"),
        "doc_to_target of train-0 is empty, .*; leave the row out",
    ),
    "division": (dict(doc_to_text="{{1/0}}"), "division by zero"),
    "metric": (
        dict(metric_list=[{"metric": "acc"}, {"metric": "acc_mutual_info"}]),
        "metric_list: 'acc_mutual_info' is not supported for multiple_choice; known: acc, acc_b",
    ),
    "metric of texts": (WRITTEN | dict(metric_list=[{"metric": "acc"}]), "'acc' is not supported"),
    "aggregation": (
        dict(metric_list=[{"metric": "acc", "aggregation": "median"}]),
        "aggregation='median' of acc is not supported",
    ),
    "option of a metric": (
        dict(metric_list=[{"metric": "acc", "ignore_case": True}]),
        "ignore_case of acc is not supported",
    ),
    "unseen label": (dict(dataset_kwargs=files("few")), "'blue' of test-0 is in no row of the"),
    "no rows": (dict(dataset_kwargs=files("none")), "none.json is empty"),
    "no file": (dict(dataset_kwargs=files("gone")), "gone.json: No such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fields_are_one_line(case, tmp_path):
    changed, message = BAD[case]
    path = write(tmp_path, BASE | FIXED)
    fields = yaml.safe_load(path.read_text()) | changed
    path.write_text(yaml.safe_dump(fields))
    (tmp_path / "data/none.json").write_text("")
    write_rows(tmp_path / "data/few.json", [r for r in rows(9) if r["word"] != "blue"], "json")
    with pytest.raises(UserError, match=message) as error:
        load_yaml_task(str(path), FRACTIONS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1\nb: 2", "task.yaml: while parsing a flow sequence"),
        ("- a\n- b", "holds no task"),
        ("include: task.yaml\n", "includes itself"),
        ("include: other.yaml\n", "other.yaml: No such file"),
        ("process_docs: !function utils.f\n", r"process_docs is a function in Python \(utils.f\)"),
        ("metric_list: [{metric: !function a.b}]\n", "metric_list is a function"),
    ],
)
def test_bad_files_are_one_line(text, message, tmp_path):
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_yaml_task(str(tmp_path / "task.yaml"), FRACTIONS)
    assert "\n" not in str(error.value)


def test_its_file_of_hellaswag_names_what_lmlite_has_not(tmp_path):
    (tmp_path / "task.yaml").write_text(real("hellaswag/hellaswag"))
    with pytest.raises(
        UserError, match=r"process_docs is a function in Python \(utils.process_docs"
    ):
        load_yaml_task(str(tmp_path / "task.yaml"), FRACTIONS)


def test_accuracies_are_those_of_lm_eval(tmp_path, monkeypatch):
    """acc, acc_norm, acc_bytes and Brier scores of random log-likelihoods, item by item."""
    names = ("acc", "acc_norm", "acc_bytes", "brier_score")
    fields = BASE | CASES["choices a column"] | dict(metric_list=[{"metric": n} for n in names])
    fields["doc_to_choice"] = "{{[word * 3, 'é' * (label + 1), letter]}}"
    path = write(tmp_path, fields)
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    assert task.metrics == ("accuracy", *names[1:])
    rng = np.random.default_rng(0)
    for _ in range(5):
        scores = rng.normal(-5, 3, (len(task.test), 3))
        chosen, targets = scores.argmax(1), np.array([e.target for e in task.test])
        answers = Choices(chosen, targets, [*scores], [e.choices for e in task.test])
        for own, name in zip(task.metrics, names, strict=True):
            found = MEASURES[own].items(answers)
            for doc, s, value in zip(theirs.eval_docs, scores, found, strict=True):
                wanted = theirs.process_results(doc, [(x, False) for x in s])[name]
                if name == "brier_score":
                    gold, likely = wanted
                    wanted = np.sum((likely - np.eye(3)[gold]) ** 2)
                assert value == pytest.approx(wanted), name


@pytest.mark.parametrize("strip", [False, True])
def test_white_space_counts_as_in_lm_eval(strip, tmp_path, monkeypatch):
    fields = BASE | CASES["generate"] | dict(doc_to_target="{{' ' * (label - 1)}}{{word}}")
    if strip:
        fields["filter_list"] = [dict(name="a", filter=[{"function": "remove_whitespace"}])]
    path = write(tmp_path, fields)
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    verdicts = set()
    for example, doc in zip(task.test, theirs.eval_docs, strict=True):
        for said in (" " + doc["word"], doc["word"], doc["word"] + " "):
            (filtered,) = theirs._filters[0].filters[0]().apply([[said]], [doc])
            result = filtered if isinstance(filtered, str) else filtered[0]
            wanted = theirs.process_results(doc, [result])["exact_match"]
            target = compared(example.target, task.generation)
            found = compared(voted([said], task.generation), task.generation)
            assert (found == target) == bool(wanted)
            verdicts.add(bool(wanted))
    assert verdicts == {True, False}


def test_rows_have_the_types_of_datasets(tmp_path, monkeypatch):
    """Whole numbers among others, infinity, and what ends a line."""
    fields = BASE | FIXED | dict(doc_to_text="{{score}}")
    path = write(tmp_path, fields)
    mixed = [row | {"score": row["label"] + 0.5 * (i == 4)} for i, row in enumerate(rows(6, 20))]
    write_rows(tmp_path / "data/test.json", mixed, "json")
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    assert_same(task, theirs, shots=(0,))
    lines = BASE | CASES["rolling"] | dict(doc_to_target="{{text}}.")
    path = write(tmp_path, lines, "json")
    for split in ("train", "test"):
        text = "a b\r\nc\x0cd\u2028e\n\n f\x85g\nh\rlast"
        (tmp_path / f"data/{split}.txt").write_text(text, newline="")
    named = {"train": "data/train.txt", "test": "data/test.txt"}
    told = yaml.safe_load(path.read_text())
    told |= dict(dataset_path="text", dataset_kwargs={"data_files": named})
    path.write_text(yaml.safe_dump(told))
    task, theirs = load_yaml_task(str(path), FRACTIONS), theirs_of(path, monkeypatch)
    assert [e.target for e in task.test] == [f"{doc['text']}." for doc in theirs.eval_docs]


def test_equal_rows_are_in_one_split(tmp_path):
    fields = BASE | FIXED | dict(training_split=None)
    path = write(tmp_path, fields)
    write_rows(tmp_path / "data/test.json", [*rows(30), *rows(30)], "json")
    task = load_yaml_task(str(path), FRACTIONS)
    assert len(task.train) + len(task.dev) + len(task.test) == 60
    assert not {e.prompt for e in task.train} & {e.prompt for e in task.test}


def test_perplexity_is_lm_evals(tmp_path):
    from lmlite.metrics.kinds import Likelihoods
    from lmlite.metrics.measures import named

    found = named(("perplexity",), Likelihoods)["perplexity"].value(
        Likelihoods(np.array([-1.0, -3.0]), ["a", "b"])
    )
    assert found == pytest.approx(np.exp(2.0))
