"""Whether a given text is what greedy decoding writes: acc of a loglikelihood, by lm_eval's rule.

Equal to its Hugging Face backend item by item, however texts are batched, shared, cached, tuned or
scored together; and at no cost where no measure asks.
"""

import dataclasses
import itertools
import json
from pathlib import Path

import harness_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

import lmlite
from lmlite import answers, arms, joint_score, tree
from lmlite.adapt import METHODS
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.arms.tuned import Tuned
from lmlite.data.harness import load_yaml_task
from lmlite.data.task import Example, Generation, Task, with_metrics
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.harness import scoring
from lmlite.icl import score
from lmlite.metrics.kinds import Likelihoods
from lmlite.metrics.measures import MEASURES
from lmlite.runtime import Meter, PeakMemory
from lmlite.train import Settings

SPEC = json.loads(cases.STORED.read_text())
FRACTIONS = (("train", 0.6), ("dev", 0.1), ("test", 0.3))
IDENTITY = dict(arm="a", family="f", task="t", split="test", seed=0)
CHOSEN = (Example("0", "x", ("no", "yes"), 0, "0"),)
BOTH = ("greedy_accuracy", "perplexity")
PROMPTS = [
    f"{a} {b}{c}"
    for a, b, c in itertools.product(
        ("The cat", "A dog", "the mat", "I"), ("sat on", "and the", "an"), ("", " cat", " dog")
    )
]
SHOWN = [("The dog sat on", " the mat"), ("A cat", " and the dog"), ("the dog", " sat"), ("I", "t")]


def evaluated(predictor, task):
    return evaluate(predictor, task, task.test, IDENTITY, PeakMemory())


# Against lm_eval.


def demonstrations(shots: int) -> str:
    return "".join(f"{prompt}{target}\n\n" for prompt, target in SHOWN[:shots])


def targets(lm, before: str) -> list[dict]:
    """Rows whose target is what the model writes, or leaves that at its first or its last token."""
    rows = []
    for i, prompt in enumerate(PROMPTS):
        ids = lm.text.encode(before + prompt)
        said = []
        for _ in range(3):
            said.append(int(np.asarray(lm.logits([ids + said]))[0, -1].argmax()))
        kind = i % 4
        if kind == 1:
            said = said[:1]
        if kind > 1:
            said[0 if kind == 2 else -1] = 2 + (said[-1] + 7 * i) % 60
        target = lm.text.decode(said)
        if lm.text.encode(before + prompt + target) == ids + said and min(said) > 1:
            rows.append({"prompt": prompt, "target": target, "kind": kind})
    return rows


def write_task(folder: Path, test: list[dict], **fields) -> tuple[Path, dict]:
    """A task file, and its fields."""
    files = {}
    for name, rows in (
        ("train", [{"prompt": p, "target": t, "kind": 0} for p, t in SHOWN]),
        ("test", test),
    ):
        files[name] = str(folder / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        **cases.TASK, "task": "mine", "output_type": "loglikelihood", "target_delimiter": "",
        "doc_to_text": "{{prompt}}", "doc_to_target": "{{target}}",
        "dataset_kwargs": {"data_files": files},
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}], **fields,
    }  # fmt: skip
    path = folder / "task.yaml"
    path.write_text(json.dumps(task))  # which is YAML
    return path, task


def of_lm_eval(model: Path, folder: Path, task: dict, shots: int, batch: int) -> dict[str, list]:
    """acc and log-probability of each item, and both metrics."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    theirs = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=batch)
    kwargs = task["dataset_kwargs"] | {"cache_dir": str(folder / "cache")}
    ran = simple_evaluate(
        theirs, tasks=[{**task, "dataset_kwargs": kwargs}], num_fewshot=shots, bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False), log_samples=True,
    )  # fmt: skip
    samples = sorted(ran["samples"]["mine"], key=lambda one: one["doc_id"])
    whole = [ran["results"]["mine"][f"{name},none"] for name in ("acc", "perplexity")]
    return {name: [s[name] for s in samples] for name in ("acc", "perplexity")} | {"whole": whole}


def assert_theirs(predictor, task, theirs) -> None:
    rows, predictions = evaluated(predictor, task)
    assert [row["metric"] for row in rows] == [*BOTH]
    assert [p["value"] for p in predictions] == theirs["acc"]
    assert [p["greedy"] for p in predictions] == [bool(a) for a in theirs["acc"]]
    likely = [p["scores"][0] for p in predictions]
    np.testing.assert_allclose(likely, theirs["perplexity"], atol=1e-3)
    assert [row["value"] for row in rows] == pytest.approx(theirs["whole"], rel=1e-4)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("greedy") / "model"
    cases.write_model(path, SPEC)
    return path


def harness_installed() -> None:
    for name in ("torch", "transformers", "lm_eval"):
        pytest.importorskip(name)


@pytest.mark.parametrize("shots, batch", [(0, 1), (0, 5), (2, 4), (4, 1)])
def test_acc_is_that_of_lm_eval_item_by_item(shots, batch, model, tmp_path):
    harness_installed()
    lm = lmlite.load(model)
    rows = targets(lm, demonstrations(shots))
    path, fields = write_task(tmp_path, rows)
    theirs = of_lm_eval(model, tmp_path, fields, shots, batch)
    verdicts = {(row["kind"], acc) for row, acc in zip(rows, theirs["acc"], strict=True)}
    assert {(0, 1), (1, 1), (2, 0), (3, 0)} <= verdicts and len(rows) > 15
    task = load_yaml_task(str(path), FRACTIONS)
    assert task.metrics == BOTH
    for bound in (1, 1024):
        arm = InContext(shots, readings=(), choose="first", tree_tokens=bound)
        predictor = arm.fit(lm, task, Labelled(task.train, ()), 0, Log())
        assert bool(predictor.prefix_ids) == bool(shots)
        assert_theirs(predictor, task, theirs)


def test_of_a_tuned_model_too(model, tmp_path):
    harness_installed()
    lm = lmlite.load(model)
    path, fields = write_task(tmp_path, targets(lm, ""))
    task = load_yaml_task(str(path), FRACTIONS)
    data = Labelled(task.train, ())
    predictor = tuned(rate=0.05).fit(lm, task, data, 0, Log())
    predictor.adaptation.folded(lm).save(tmp_path / "tuned")
    for name in ("tokenizer", "tokenizer_config"):
        (tmp_path / f"tuned/{name}.json").write_text(json.dumps(SPEC[name]))
    theirs = of_lm_eval(tmp_path / "tuned", tmp_path, fields, 0, 3)
    assert_theirs(predictor, task, theirs)
    plain = InContext(0, readings=()).fit(lm, task, data, 0, Log())
    assert evaluated(plain, task)[0][0]["value"] != theirs["whole"][0]


# The file.


@pytest.mark.parametrize(
    "listed, metrics",
    [
        ([], ("perplexity", "greedy_accuracy")),  # lm_eval's usual ones
        (["acc"], ("greedy_accuracy",)),
        (["perplexity"], ("perplexity",)),
        (["perplexity", "acc"], ("perplexity", "greedy_accuracy")),
    ],
)
def test_the_metrics_of_a_file(listed, metrics, tmp_path):
    options = {"aggregation": "mean", "higher_is_better": True}
    named = [{"metric": n, **(options if n == "acc" else {})} for n in listed]
    rows = [{"prompt": "a", "target": " b"}]
    path, _ = write_task(tmp_path, rows, metric_list=named)
    assert load_yaml_task(str(path), FRACTIONS).metrics == metrics


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(metric_list=[{"metric": "acc_norm"}]),
            "'acc_norm' is not supported for loglikelihood; known: acc, bits_per_byte",
        ),
        (
            dict(metric_list=[{"metric": "acc", "aggregation": "median"}]),
            "aggregation='median' of acc is not supported; leave it out for 'mean'",
        ),
        (
            dict(metric_list=[{"metric": "acc", "ignore_case": True}]),
            "ignore_case of acc is not supported",
        ),
        (
            dict(output_type="loglikelihood_rolling", metric_list=[{"metric": "acc"}]),
            "'acc' is not supported for loglikelihood_rolling; known: bits_per_byte, byte_p",
        ),
    ],
)
def test_what_is_not_known_is_one_line(fields, message, tmp_path):
    path, _ = write_task(tmp_path, [{"prompt": "a", "target": " b"}], **fields)
    with pytest.raises(UserError, match=message) as error:
        load_yaml_task(str(path), FRACTIONS)
    assert "\n" not in str(error.value) and "greedy_accuracy" not in str(error.value)


# Against plain computations.


@pytest.fixture(scope="module")
def lm():
    """It writes printable characters, which are the first tokens."""
    made = tiny_lm(scale=3.0, hidden=80, layers=2)
    params = tree.flatten(made.params)
    params["embed/embedding"] = params["embed/embedding"].at[94:].set(0.0)
    return dataclasses.replace(made, params=tree.unflatten(params))


def plainly(lm, prompt: str, target: str) -> bool:
    """By one pass over the whole text."""
    ids, n = lm.text.encode(prompt + target), len(lm.text.encode(prompt))
    likeliest = np.asarray(lm.logits([ids]))[0].argmax(-1)
    return ids[n:] == likeliest[n - 1 : -1].tolist()


def example(i: int) -> Example:
    return Example(str(i), f"{'xyz'[i % 3] * 20}{i}?", (), "abc"[: 1 + i % 3], str(i))


def made_task(lm, shots: int) -> Task:
    """Texts of one token to three; every other test item has what the model writes."""
    shown, items = tuple(map(example, range(8))), tuple(map(example, range(8, 48)))
    task = Task(
        "t", (), shown, (), items, fewshot_delimiter=";", target_delimiter="", metrics=BOTH
    )
    texts = fitted(lm, task, shots=shots).prompts(items)
    greedy = []
    for i, (one, text) in enumerate(zip(items, texts, strict=True)):
        ids = lm.text.encode(text)
        for _ in range(len(one.target)):
            ids = [*ids, int(np.asarray(lm.logits([ids]))[0, -1].argmax())]
        said = lm.text.decode(ids[-len(one.target) :])
        greedy.append(one if i % 2 else dataclasses.replace(one, target=said))
    return dataclasses.replace(task, test=tuple(greedy))


@pytest.fixture(scope="module")
def task(lm) -> Task:
    return made_task(lm, 0)


def fitted(lm, task, **fields):
    arm = InContext(**{"shots": 2, "readings": (), **fields})
    return arm.fit(lm, task, Labelled(task.train, ()), 0, Log())


@pytest.mark.parametrize("shots", [0, 2])
def test_it_is_that_of_one_pass_a_text_in_any_company(shots, lm):
    task = made_task(lm, shots)
    predictor = fitted(lm, task, shots=shots)
    texts = predictor.prompts(task.test)
    wanted = [plainly(lm, text, e.target) for text, e in zip(texts, task.test, strict=True)]
    assert wanted[::2] == [True] * 20 and wanted[1::2] == [False] * 20
    bare = dataclasses.replace(predictor, prefix_ids=(), prefix=None, tree_tokens=1)
    for one in (predictor, bare, dataclasses.replace(predictor, tree_tokens=100)):
        found = one.predict(task.test, Meter())[""]
        assert [s.shape for s in found] == [(2,)] * len(wanted)
        assert [s[1] == 0 for s in found] == wanted
        alone = [one.predict([e], Meter())[""][0] for e in task.test[:6]]
        assert [s[1] for s in alone] == [s[1] for s in found[:6]]


def test_of_equally_likely_tokens_the_first_is_greedy(lm):
    """As of torch.argmax: all logits are 0."""
    even = dataclasses.replace(lm, params=jax.tree.map(jnp.zeros_like, lm.params))
    first, other = even.text.decode([0]), even.text.decode([1])
    items = tuple(
        Example(str(i), "x", (), text, str(i))
        for i, text in enumerate((first, other, first + first, first + other))
    )
    task = Task("t", (), items, (), items, target_delimiter="", metrics=BOTH)
    found = fitted(even, task, shots=0).predict(items, Meter())[""]
    assert [s[1] for s in found] == [0, 1, 0, 1]
    asked = [scoring.Request([9], even.text.encode(e.target)) for e in items]
    told = scoring.score(even, asked, 64, 64)  # the harness's model has the same rule
    assert [greedy for _, greedy in told] == [True, False, True, False]


def test_the_measure_is_the_mean_of_its_items():
    greedy = [True, False, False, True]
    given = Likelihoods(np.array([-1.0, -2.0, -3.0, -4.0]), list("abcd"), (), greedy)
    measure = MEASURES["greedy_accuracy"]
    assert measure.items(given).tolist() == [1, 0, 0, 1] and measure.value(given) == 0.5
    assert measure.share and not measure.lower and measure.of is Likelihoods


def test_it_is_of_texts_that_are_given(task):
    written = dataclasses.replace(task, generation=Generation(max_new_tokens=2))
    for other in (written, dataclasses.replace(task, train=CHOSEN)):
        with pytest.raises(UserError, match="'greedy_accuracy'; for this task known: (acc|exact)"):
            with_metrics(other, ("greedy_accuracy",))


def test_no_cost_where_no_measure_asks(lm, task, monkeypatch):
    """The program that is compiled is the one without; with it, only a comparison is added."""

    def flops(metrics):
        own = dataclasses.replace(task, metrics=metrics)
        rows, predictions = evaluated(fitted(lm, own), own)
        assert all(("greedy" in p) == ("greedy_accuracy" in metrics) for p in predictions)
        return rows[0]["flops_per_query"]

    asking = flops(BOTH)
    monkeypatch.setattr(score, "_score_greedy", lambda *a: pytest.fail("asked"))
    silent = flops(("perplexity",))
    assert silent < asking < 1.2 * silent
    states, chosen = jnp.zeros((8, lm.config.width)), jnp.zeros((8, 1), jnp.int32)
    made = jax.make_jaxpr(lambda *a: score.target_logprobs(lm.network, lm.params, *a))
    assert "argmax" not in str(made(states, chosen))


# Stopped, and together.


class Stopped(Exception):
    """What a test stops an evaluation with."""


def test_a_stopped_evaluation_goes_on(lm, task, tmp_path, monkeypatch):
    calls = {"n": 0, "stop": 10**9}

    def counting(program):
        def call(*args):
            if calls["n"] == calls["stop"]:
                raise Stopped
            calls["n"] += 1
            return program(*args)

        return call

    monkeypatch.setattr(answers, "PORTION_SECONDS", -np.inf)
    for name in ("_score", "_score_greedy"):
        monkeypatch.setattr(score, name, counting(getattr(score, name)))
    predictor = fitted(lm, task, shots=0, tree_tokens=1)

    def run(folder, own=task, stop=10**9):
        calls.update(n=0, stop=stop)
        one = dataclasses.replace(predictor, task=own).keeping(tmp_path / folder)
        return evaluated(one, own)

    rows, predictions = run("whole")
    whole = calls["n"]
    assert whole >= 2
    with pytest.raises(Stopped):
        run("cut", stop=1)
    again, same = run("cut")
    assert calls["n"] == whole - 1 and same == predictions
    assert [r["value"] for r in again] == [r["value"] for r in rows]
    silent = dataclasses.replace(task, metrics=("perplexity",))
    assert "greedy" not in run("whole", silent)[1][0]  # another answer, though the texts are equal
    assert calls["n"] == whole


def tuned(rate=1e-2, rank=2) -> Tuned:
    optim = dict(
        learning_rate=rate, weight_decay=0.0, schedule="linear", warmup=0.1, clip_norm=1.0,
        accumulate=1, groups=(),
    )  # fmt: skip
    return Tuned(METHODS["lora"](rank=rank), Settings(2, 4, 0, optim, "none"))


def test_arms_scored_in_one_step_each_as_alone(lm, task, monkeypatch):
    data, pairs = Labelled(task.train, ()), [(tuned(1e-3), 0), (tuned(3e-3, rank=3), 1)]
    both = list(arms.fit_together([arms.Fit(a, s, Log()) for a, s in pairs], lm, task, data))
    asked, program = [], joint_score._greedy
    monkeypatch.setattr(joint_score, "_greedy", lambda *a: asked.append(1) or program(*a))
    for predictor, (arm, seed) in zip(both, pairs, strict=True):
        alone = evaluated(arm.fit(lm, task, data, seed, Log()), task)
        rows, predictions = evaluated(predictor, task)
        assert rows[0]["evaluated_together"] == 2
        assert [row["value"] for row in rows] == pytest.approx([row["value"] for row in alone[0]])
        assert [p["greedy"] for p in predictions] == [p["greedy"] for p in alone[1]]
        assert 0 < rows[0]["value"] < 1
    assert asked


def test_an_order_found_on_development_examples_has_it_too(lm, task):
    shown = Labelled(task.train[:4], task.train[4:])
    arm = InContext(2, readings=(), order="best", orders=2)
    found = evaluated(arm.fit(lm, task, shown, 0, Log()), task)[0]
    assert [row["metric"] for row in found] == [*BOTH]
