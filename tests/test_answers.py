"""An evaluation that was stopped goes on from its answers, and ends as one that never was."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
from test_in_context import TASK
from tiny_lm import tiny_lm, write_model, write_task

from configs import compare as config_of
from lmlite import answers
from lmlite.answers import Answers
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.compare import compare
from lmlite.data.task import Example, Generation
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.icl import score, write
from lmlite.runtime import Meter, PeakMemory
from lmlite.workdir import Records, write_config

IDENTITY = {"arm": "a", "family": "in-context", "task": "t", "split": "test", "seed": 0}
READINGS = ("contextual", "batch", "pmi")


class Stopped(Exception):
    """What a test stops an evaluation with."""


def examples(n, choices=("no", "yes")):
    def text(i):
        return f"{i} {'xyz'[i % 3] * (60 + i % 7)}?"  # they begin unlike: nothing is shared

    targets = [i % 2 if choices else "so" for i in range(n)]
    return tuple(Example(f"e{i}", text(i), choices, targets[i], f"g{i}") for i in range(n))


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=1)


@pytest.fixture
def counted(monkeypatch):
    """Calls of the model, each written at once; `stop` of them later an evaluation is stopped."""
    calls = {"n": 0, "stop": 10**9}

    def counting(function):
        def call(*args, **kwargs):
            if calls["n"] == calls["stop"]:
                raise Stopped
            calls["n"] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(answers, "PORTION_SECONDS", -np.inf)
    monkeypatch.setattr(score, "_score", counting(score._score))
    monkeypatch.setattr(write, "generate", counting(write.generate))
    return calls


def fitted(lm, task, **fields):
    shown = Labelled(task.train, ())
    return InContext(**{"shots": 2, "readings": READINGS, **fields}).fit(lm, task, shown, 0, Log())


def run(predictor, task, folder, calls, stop=10**9):
    """(what `evaluate` gives, calls of the model)."""
    calls |= {"n": 0, "stop": stop}
    predictor = predictor.keeping(folder)
    found = evaluate(predictor, task, task.test, IDENTITY, PeakMemory())
    return found, calls["n"]


@pytest.mark.parametrize("kind", ["scored", "channel", "sampled"])
def test_what_is_missing_is_computed_and_nothing_else(lm, counted, tmp_path, kind):
    fields, generation = {}, Generation()
    if kind == "channel":
        fields = dict(direction="channel", readings=())
    if kind == "sampled":
        fields = dict(shots=0)
        generation = Generation(max_new_tokens=2, temperature=1.0, samples=2)
    rows = examples(50, () if generation.max_new_tokens else ("no", "yes"))
    metrics = ("chrf",) if generation.max_new_tokens else ("accuracy", "log_likelihood")
    task = dataclasses.replace(
        TASK, train=rows[:4], test=rows[4:], generation=generation, metrics=metrics
    )
    predictor = fitted(lm, task, **fields)
    (results, predictions), calls = run(predictor, task, tmp_path / "whole", counted)
    assert calls >= 3
    with pytest.raises(Stopped):
        run(predictor, task, tmp_path / "cut", counted, stop=1)
    with pytest.raises(Stopped):  # stopped a second time
        run(predictor, task, tmp_path / "cut", counted, stop=1)
    (again, same), rest = run(predictor, task, tmp_path / "cut", counted)
    assert rest == calls - 2
    assert same == predictions  # every score to the last bit
    for one, two in zip(results, again, strict=True):
        assert one["value"] == two["value"] and one["flops_per_query"] == two["flops_per_query"]
    if kind == "sampled":  # batch by batch, what one call for all prompts draws
        texts = [text for text in predictor.prompts(task.test) for _ in range(2)]
        drawn = lm.generate(texts, max_new_tokens=2, temperature=1.0)
        assert predictor.write(task.test, Meter(), 0) == [drawn[i : i + 2] for i in range(0, 92, 2)]
    plain = evaluate(predictor, task, task.test, IDENTITY, PeakMemory())
    assert plain[1] == predictions  # as without keeping anything


def test_costs_are_those_of_all_parts(counted, tmp_path):
    asked = [[np.arange(i)] for i in range(3)]

    def pay(meter):
        meter.flops += 10
        meter.compile_seconds += 1
        return np.ones(2)

    first, meter = Answers(tmp_path), Meter()
    for one in asked[:2]:
        first.of(one, lambda: pay(meter), meter)
    first.of(asked[0], lambda: pay(meter), meter)
    assert (meter.flops, first.earlier) == (20, Meter())  # its own answers are counted once
    second, meter = Answers(tmp_path), Meter()
    for one in [*asked, asked[0]]:
        np.testing.assert_array_equal(second.of(one, lambda: pay(meter), meter), np.ones(2))
    assert (meter.flops, second.earlier.flops, second.earlier.compile_seconds) == (10, 20, 2)


def test_another_fit_another_answer(lm, counted, tmp_path):
    """Other demonstrations, or trained leaves, are not answered from the same file."""
    rows = examples(8)
    task = dataclasses.replace(TASK, train=rows[:4], test=rows[4:])
    one, two = (fitted(lm, task, shots=k, readings=()) for k in (1, 2))
    _, calls = run(one, task, tmp_path, counted)
    (_, found), other = run(two, task, tmp_path, counted)
    assert calls and other and found == evaluate(two, task, task.test, IDENTITY, PeakMemory())[1]
    for value, again in ((0.0, calls), (1.0, calls), (0.0, 0)):
        trained = SimpleNamespace(params={"lora": {"a": np.full(2, value)}})
        tuned = dataclasses.replace(one, adaptation=trained)
        assert run(tuned, task, tmp_path, counted)[1] == again


def test_portions_and_damage(tmp_path, monkeypatch):
    """A slow computation is written at once, quick ones together; a damaged file is told of."""
    monkeypatch.setattr(answers, "PORTION_SECONDS", 3600.0)
    kept = Answers(tmp_path)
    kept.of([np.arange(2)], lambda: np.ones(1), Meter())
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(answers, "PORTION_SECONDS", 0.0)
    kept.of([np.arange(3)], lambda: np.ones(1), Meter())
    (file,) = tmp_path.iterdir()
    whole, out = file.read_bytes(), io.BytesIO()
    np.savez(out, a=np.ones(1))  # of another program
    for damaged in (b"damaged", whole[: len(whole) // 2], out.getvalue()):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{file.name} cannot be read .*delete it"):
            Answers(tmp_path)


def test_a_comparison_goes_on_within_a_job(counted, tmp_path):
    write_model(tmp_path / "model", layers=1)
    write_task(tmp_path / "task.csv", rows=300)
    arms = "4-shot,linear-probe"
    config = config_of.get_config(f"csv:{tmp_path}/task.csv", str(tmp_path / "model"), arms)
    config.task.update(template="{text} and more?", labels=("bad", "good"), choices=("no", "yes"))
    config.update(examples=8, test_items=80, seeds=(0,), draws=(0,))
    config.arms["linear-probe"].train.epochs = 1

    def compared(name, stop=10**9):
        write_config(tmp_path / name, config)
        counted.update(n=0, stop=stop)
        try:
            compare(config, tmp_path / name)
        except Stopped:
            assert list((tmp_path / name / "answers").glob("*/*.npz"))
        return counted["n"]

    calls = compared("whole")
    parts = [compared("cut", stop) for stop in (2, calls - 4, 10**9)]
    assert parts[2] and sum(parts) == calls
    rows, answered = (
        [Records(tmp_path / name / f"{file}.jsonl").rows() for name in ("whole", "cut")]
        for file in ("results", "predictions")
    )
    assert answered[0] == answered[1]
    assert [r["flops_per_query"] for r in rows[0]] == [r["flops_per_query"] for r in rows[1]]
    assert not (tmp_path / "cut" / "answers").exists()
