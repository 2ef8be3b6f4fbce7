"""What is made of an arm's answers: which measures hold, and what is counted in them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.data.task import Example, Generation, Task
from lmlite.decode import loop
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.runtime import Meter, PeakMemory

IDENTITY = {"arm": "a", "family": "in-context", "task": "t", "split": "test", "seed": 0}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=1)


def examples(n: int, choices=lambda i: ("no", "yes")) -> tuple[Example, ...]:
    def one(i: int) -> Example:
        own = choices(i)
        target = i % len(own) if own else f"so {i}"
        return Example(f"e{i}", f"{'xyz'[i % 3]} {i}?", own, target, f"g{i}")

    return tuple(map(one, range(n)))


def made(items, shots=0, **fields) -> tuple[Task, InContext]:
    task = Task("t", (), items, (), items, fewshot_delimiter=";", **fields)
    return task, Labelled(items[:6], ())


def evaluated(lm, task, data, **arm):
    predictor = InContext(**{"readings": (), **arm}).fit(lm, task, data, 0, Log())
    return evaluate(predictor, task, task.test, IDENTITY, PeakMemory())[0]


def test_a_batch_calibrates_items_with_as_many_choices_alone(lm):
    """Others keep their plain reading, as with calibration by prompts that say nothing."""
    task, data = made(examples(8, lambda i: ("no", "yes", "maybe")[: 2 + i % 2]))
    names = [row["arm"] for row in evaluated(lm, task, data, readings=("batch", "length"))]
    assert names == ["a", "a+length"]
    alike, data = made(examples(8, lambda i: (f"no {i}", f"yes {i}")))
    names = [row["arm"] for row in evaluated(lm, alike, data, readings=("batch", "contextual"))]
    assert names == ["a", "a+batch"]


def test_scores_that_are_no_numbers_are_told_of(lm):
    broken = dataclasses.replace(lm, params=jax.tree.map(lambda x: x * jnp.nan, lm.params))
    task, data = made(examples(8))
    with pytest.raises(UserError, match="scores are not finite.*try dtype=float32"):
        evaluated(broken, task, data)


@pytest.mark.parametrize("direction", ["direct", "channel", "constrained"])
def test_accuracy_by_size_needs_scores_of_the_choices(lm, direction):
    task, data = made(examples(8), metrics=("accuracy", "acc_norm"))
    found = {r["metric"]: r["value"] for r in evaluated(lm, task, data, direction=direction)}
    assert found["accuracy"] is not None
    assert (found["acc_norm"] is not None) == (direction == "direct")


def test_the_channel_has_no_chat(lm):
    task, data = made(examples(8), chat=True)
    with pytest.raises(UserError, match="'channel'.*task.chat=false"):
        evaluated(lm, task, data, direction="channel")


@pytest.mark.parametrize(("end", "between"), [("", ""), ("", " "), (" \n", ""), ("\n\n", " ")])
def test_bits_per_byte_count_all_that_is_scored(lm, end, between):
    """A model that finds every token as likely as any other: the tokens' bits over the bytes."""
    even = dataclasses.replace(lm, params=jax.tree.map(jnp.zeros_like, lm.params))
    items = tuple(
        dataclasses.replace(e, prompt=e.prompt + end) for e in examples(8, lambda i: ())
    )
    metrics = ("bits_per_byte", "word_perplexity")
    task, data = made(items, target_delimiter=between, metrics=metrics)
    found = {r["metric"]: r["value"] for r in evaluated(even, task, data)}
    scored = [end + between + e.target for e in items]
    bare = [e.prompt.rstrip() for e in items]
    whole = [text + own for text, own in zip(bare, scored, strict=True)]
    tokens = sum(len(lm.text.encode(text)) for text in whole)
    tokens -= sum(len(lm.text.encode(text)) for text in bare)
    nats = tokens * math.log(lm.config.vocab_size)
    size = sum(len(text.encode()) for text in scored)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found["word_perplexity"] == pytest.approx(math.exp(nats / 16), rel=1e-4)


def test_a_prompt_is_read_once_for_all_its_samples(lm, monkeypatch):
    read, begin = [], loop.begin
    monkeypatch.setattr(
        loop, "begin", lambda *args: (read.append(args[6]), begin(*args))[1]
    )
    generation = Generation(max_new_tokens=4, temperature=1.0, samples=5)
    task, data = made(examples(7, lambda i: ()), generation=generation)
    predictor = InContext(0, readings=()).fit(lm, task, data, 0, Log())
    texts = predictor.write(task.test, Meter(), 0)
    assert sum(map(len, read)) <= 9  # 7, and 2 to fill the last batch of 3
    alone = [text for e in task.test for text in [e.prompt] * 5]
    drawn = lm.generate(alone, max_new_tokens=4, temperature=1.0)
    assert [text for own in texts for text in own] == drawn
    other = predictor.write(task.test, Meter(), 1)
    assert other != texts and predictor.write(task.test, Meter(), 0) == texts


def test_more_samples_than_rows_of_a_batch(lm):
    generation = Generation(max_new_tokens=2, temperature=1.0, samples=19)
    task, data = made(examples(7, lambda i: ()), generation=generation)
    predictor = InContext(0, readings=()).fit(lm, task, data, 0, Log())
    texts = predictor.write(task.test[:2], Meter(), 0)
    prompts = [e.prompt for e in task.test[:2] for _ in range(19)]
    drawn = lm.generate(prompts, max_new_tokens=2, temperature=1.0)
    assert [text for own in texts for text in own] == drawn
    assert [len(own) for own in texts] == [19, 19]
    with pytest.raises(UserError, match="samples=2 texts would be the same at temperature=0"):
        lm.generate("x", samples=2)


def test_long_prompts_are_written_in_smaller_batches(lm, monkeypatch):
    """A setting bounds the cache; the texts are the same."""
    shapes, begin = [], loop.begin

    def begun(*args):
        shapes.append((len(args[6]) * args[4].rows_each, args[5].shape[1]))
        return begin(*args)

    monkeypatch.setattr(loop, "begin", begun)
    generation = Generation(max_new_tokens=8, temperature=1.0, samples=3)
    task, data = made(examples(7, lambda i: ()), generation=generation)
    predictor = InContext(0, readings=()).fit(lm, task, data, 0, Log())
    texts = predictor.write(task.test, Meter(), 0)
    assert {rows for rows, _ in shapes} == {15}
    for bound in (8, 2, 1):  # a cache of 16 times as many tokens
        shapes.clear()
        bounded = dataclasses.replace(predictor, tree_tokens=bound)
        assert bounded.write(task.test, Meter(), 0) == texts
        assert all(rows * (T + 8) <= 16 * bound or rows == 1 for rows, T in shapes)


def test_items_that_are_all_alike_do_not_tell_of_other_numbers_than_shares():
    from lmlite.metrics import interval

    assert interval(np.zeros((1, 20))).high > 0.1  # by Wilson
    value, low, high = interval(np.zeros((1, 20)), share=False)
    assert value == 0 and math.isnan(low) and math.isnan(high)
    value, low, high = interval(np.array([[0.0, 1.0] * 10]), share=False)
    assert low < value < high
