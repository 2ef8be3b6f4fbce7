"""Choice scores: packed, cached and batched equal the plain computation, one text at a time."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite.data.item import choice_item
from lmlite.data.pack import pack
from lmlite.data.rows import first_fit, layout
from lmlite.errors import UserError
from lmlite.icl import calibrate
from lmlite.icl.encode import encode, shared_prefix
from lmlite.icl.score import prefill, score
from lmlite.runtime import Meter


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def queries(n=12, seed=0, longest=40):
    draw = np.random.default_rng(seed)

    def ids(low, high):
        return [int(i) for i in draw.integers(0, 256, draw.integers(low, high))]

    return [(ids(3, longest), [ids(1, 5) for _ in range(3)]) for _ in range(n)]


def plain(lm, context, query, choices, length=384):
    """Each choice by a full forward pass of its own, padded so that all compile once."""
    ids, mask = np.zeros((len(choices), length), np.int32), np.zeros((len(choices), length), bool)
    for row, choice in enumerate(choices):
        text = [*context, *query, *choice]
        ids[row, : len(text)], mask[row, : len(text)] = text, True
    logp = np.asarray(jax.nn.log_softmax(lm.logits(ids, mask), -1))
    start = len(context) + len(query) - 1
    return np.array(
        [sum(logp[r, start + j, t] for j, t in enumerate(c)) for r, c in enumerate(choices)]
    )


def scored(lm, context, items, **kwargs):
    limit, meter = lm.config.max_positions, Meter()
    prefix = prefill(lm.network, lm.params, context, limit, meter) if context else None
    items = [choice_item(q, c, len(context)) for q, c in items]
    return score(lm.network, lm.params, items, limit, meter, prefix, **kwargs)


@pytest.mark.parametrize("context", [0, 1, 256, 300])
def test_cached_equals_plain_for_ragged_batches(lm, context):
    prefix = [int(i) for i in np.random.default_rng(1).integers(0, 256, context)]
    items = queries()
    for found, (query, choices) in zip(scored(lm, prefix, items), items, strict=True):
        np.testing.assert_allclose(found, plain(lm, prefix, query, choices), atol=1e-4)


@pytest.mark.parametrize("fields", [{"window": 6, "window_layers": (0, 2)}, {"attn_soft_cap": 5.0}])
def test_cached_equals_plain_with_window_and_cap(fields):
    lm, items, prefix = tiny_lm(**fields), queries(4), list(range(30))
    for found, (query, choices) in zip(scored(lm, prefix, items), items, strict=True):
        np.testing.assert_allclose(found, plain(lm, prefix, query, choices), atol=1e-4)


def test_scores_do_not_depend_on_company(lm):
    items = queries(60)
    together = scored(lm, [1, 2, 3], items)[:5]
    alone = [scored(lm, [1, 2, 3], [item])[0] for item in items[:5]]
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-4)


def test_choices_do_not_see_each_other(lm):
    (query, choices), *_ = queries(1)
    both = scored(lm, [], [(query, choices)])[0]
    for c, choice in enumerate(choices):
        np.testing.assert_allclose(scored(lm, [], [(query, [choice])])[0][0], both[c], atol=1e-4)


def test_single_token_choices_add_no_input_token():
    assert len(choice_item([1, 2, 3], [[7], [8]]).ids) == 3
    assert len(choice_item([1, 2, 3], [[7, 1], [8, 2, 3]]).ids) == 6


def test_many_choices_are_read_in_blocks(lm):
    query, choices = [1, 2, 3], [[i, i + 1, i + 2] for i in range(100)]
    np.testing.assert_allclose(
        scored(lm, [], [(query, choices)])[0], plain(lm, [], query, choices), atol=1e-4
    )


def test_a_few_items_do_not_fill_a_batch(lm):
    def flops(n):
        meter = Meter()
        score(lm.network, lm.params, [choice_item(*q) for q in queries(n)], 1024, meter)
        return meter.flops / n

    assert flops(2) < 3 * flops(80)


def test_packing_holds_every_item_once():
    items = [choice_item(q, c) for q, c in queries(30)]
    batches = list(pack(items, 128, 2))
    owners = np.concatenate([b.owner[b.weights.any(1)] for b in batches])
    assert set(owners) == set(range(30))
    assert sum((b.segment > 0).sum() for b in batches) == sum(len(i.ids) for i in items)
    flat = np.concatenate([i.ids for i in items])
    for b in batches:
        held = b.segment > 0
        np.testing.assert_array_equal(b.ids[held], flat[b.origin[held]])


def test_rows_are_as_long_as_fills_them_best():
    """Passages of 218 to 482 tokens: two to a row of 704, where rows of 512 hold one each."""
    sizes = [218, 256, 261, 275, 278, 305, 308, 311, 326, 326, 330, 334, 343, 345, 346, 357, 372,
             376, 389, 393, 410, 418, 423, 482]  # fmt: skip
    passages = [choice_item([1] * n, [[1]]) for n in sizes]
    assert layout(passages, 2048) == (704, 1)
    short = [choice_item([1] * 30, [[1]]) for _ in range(130)]
    length, rows = layout(short, 2048)
    batches = list(pack(short, length, rows))
    assert sum(b.ids.size for b in batches) < 1.1 * 30 * 130  # nor is the last one half empty
    assert max(b.ids.size for b in batches) <= 1024
    assert np.prod(layout(short[:3], 2048)) == 96
    assert layout([choice_item([1] * 1500, [[1]])], 2048) == (1504, 1)


def test_first_fit_never_overfills():
    rows = first_fit([5, 9, 3, 3, 8, 1], 10)
    assert sorted(i for row in rows for i in row) == list(range(6))
    assert all(sum([5, 9, 3, 3, 8, 1][i] for i in row) <= 10 for row in rows)


def test_too_long_is_refused(lm):
    short = dataclasses.replace(lm, config=dataclasses.replace(lm.config, max_positions=64))
    with pytest.raises(UserError, match="prompt of 70 tokens.*context of 64"):
        scored(short, [], [([1] * 70, [[2]])])
    with pytest.raises(UserError, match="demonstrations take 64 tokens.*context is 64"):
        scored(short, [1] * 64, [([1], [[2]])])


def test_encode_follows_the_joint_text(lm):
    (only,) = encode(lm.text, ["ab "], [["c", "cd"]])
    assert lm.text.decode(only.context) == "ab"  # the trailing space moves
    assert [lm.text.decode(c) for c in only.choices] == [" c", " cd"]
    with pytest.raises(UserError, match="no token that starts a text"):
        encode(lm.text, [" "], [["c"]])
    with pytest.raises(UserError, match="adds no token"):
        encode(lm.text, ["ab"], [[""]])


@pytest.mark.parametrize(
    "sequences, length",
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[5], [5]], 0), ([[1, 2], [3]], 0)],
)
def test_shared_prefix(sequences, length):
    assert shared_prefix(sequences) == length


def test_contextual_calibration_is_the_papers_w():
    scores, free = np.log([[0.6, 0.3], [0.2, 0.2]]), np.log([[0.8, 0.2], [0.6, 0.4]])
    prior = np.mean([[0.8, 0.2], [0.6, 0.4]], axis=0)
    expected = np.array([[2 / 3, 1 / 3], [0.5, 0.5]]) @ np.diag(1 / prior)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(calibrate.contextual(scores, free)), expected)


def test_batch_calibration_removes_the_batch_prior():
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.75, 0.25]])
    expected = p / p.mean(0)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(calibrate.batch(np.log(p))), expected)
    assert list(calibrate.batch(np.log(p)).argmax(1)) == [0, 1, 1]


def test_length_normalised_divides_by_tokens():
    found = calibrate.length_normalised(np.array([-6.0, -4.0]), [3, 1])
    np.testing.assert_allclose(found, [-2.0, -4.0])
