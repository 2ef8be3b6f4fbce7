"""In-context scores whatever the batch and the cache, up to the model's last position."""

import dataclasses

import jax
import numpy as np
import pytest
from test_in_context import TASK
from tiny_lm import tiny_lm

from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.data.task import Example
from lmlite.errors import UserError
from lmlite.runtime import Meter

CHOICES = ("no", "yes", "never")


def example(i, size=0):
    return Example(f"e{i}", "xyz "[i % 4] * (size or 3 + i % 9) + f"{i}?", CHOICES, i % 3, f"g{i}")


def fitted(lm, shots, pool):
    task = dataclasses.replace(TASK, choices=CHOICES, train=pool, test=pool[:2])
    arm = InContext(shots=shots, choose="first", readings=())
    return arm.fit(lm, task, Labelled(pool, ()), 0, Log())


@pytest.mark.parametrize("shots", [0, 6])
def test_scores_are_the_same_for_every_batch_with_and_without_the_prefix(shots):
    lm = tiny_lm(layers=1, scale=3.0)
    cached = fitted(lm, shots, tuple(map(example, range(8))))
    cached = dataclasses.replace(cached, tree_tokens=1)  # trees are for test_plan
    whole = dataclasses.replace(cached, prefix=None, prefix_ids=())
    assert bool(cached.prefix) == bool(shots)
    asked = [example(i) for i in range(8, 72)]
    first = None
    for predictor in (whole, cached):
        for size in (64, 7, 1):
            some = asked if size > 1 else asked[:9]
            parts = [some[i : i + size] for i in range(0, len(some), size)]
            found = [s for part in parts for s in predictor.predict(part, Meter())[""]]
            first = found if first is None else first
            np.testing.assert_allclose(
                np.stack(found), np.stack(first)[: len(found)], atol=1e-5, rtol=0
            )
    assert np.std(np.stack(first)) > 1


def test_a_hundred_demonstrations_up_to_the_last_position():
    lm = tiny_lm(layers=1, heads=1, kv_heads=1, max_positions=4096)
    predictor = fitted(lm, 100, tuple(example(i, 27) for i in range(100)))
    taken = len(lm.text.encode(predictor.prompts([example(0, 27)])[0]))
    longest = len(" never") - 1  # the last token is only predicted
    room = 4096 - taken - longest
    assert 0 < room and len(predictor.prefix_ids) > 3000
    full, over = example(0, 27 + room), example(0, 28 + room)
    (found,) = predictor.predict([full], Meter())[""]
    (prompt,) = predictor.prompts([full])
    context = lm.text.encode(prompt)
    for choice, score in zip(CHOICES, found, strict=True):
        ids = lm.text.encode(f"{prompt} {choice}")
        logp = jax.nn.log_softmax(lm.logits([(ids[:-1] + [0] * 9)[:4096]]), -1)[0]
        expected = sum(float(logp[n - 1, ids[n]]) for n in range(len(context), len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="a prompt of 4097 tokens .* context of 4096; use fewer"):
        predictor.predict([over], Meter())


def test_demonstrations_that_do_not_fit():
    lm = tiny_lm(layers=1, max_positions=128)
    with pytest.raises(
        UserError, match="demonstrations take .* context is 128; use fewer or short"
    ):
        fitted(lm, 8, tuple(example(i, 20) for i in range(8)))


def test_a_choice_without_a_token():
    lm = tiny_lm(layers=1)
    predictor = fitted(lm, 0, (example(0), example(1)))
    task = dataclasses.replace(predictor.task, target_delimiter="")
    empty = dataclasses.replace(example(3), choices=("no", ""))
    with pytest.raises(UserError, match="choice '' adds no token to its prompt; name it diff"):
        dataclasses.replace(predictor, task=task).predict([empty], Meter())
