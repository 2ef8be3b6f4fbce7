"""Trees of prefixes: what is shared is computed once, and every score is that of a pass alone."""

import dataclasses

import numpy as np
import pytest
from test_scoring import plain
from tiny_lm import tiny_lm

from lmlite.arms.arm import Cost
from lmlite.arms.choices import ModelPredictor
from lmlite.data.task import Task
from lmlite.icl.encode import Encoded
from lmlite.icl.plan import groups, tree_item
from lmlite.icl.score import score
from lmlite.models.trees import common
from lmlite.runtime import Meter


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def passage(seed, questions=3, length=60):
    """Questions on one text, with choices that begin alike; one question is another's beginning."""
    draw = np.random.default_rng(seed)

    def ids(n):
        return [int(i) for i in draw.integers(1, 256, n)]

    text, stem = ids(length), ids(2)
    asked = [text + ids(int(draw.integers(3, 9))) for _ in range(questions)]
    asked.append(asked[0][:-1])
    choices = [[*stem, *ids(2)], [*stem, *ids(1)], ids(1)]
    return [Encoded(one, choices) for one in asked]


def test_a_tree_scores_each_choice_as_a_pass_of_its_own(lm):
    encoded = passage(0)
    item = tree_item(encoded)
    unique = {tuple((*e.context, *c[:-1])[:n]) for e in encoded for c in e.choices
              for n in range(1, len(e.context) + len(c))}  # fmt: skip
    assert len(item.ids) == len(unique)  # every prefix is one token, once
    (found,) = score(lm.network, lm.params, [item], lm.config.max_positions, Meter())
    expected = np.concatenate([plain(lm, [], e.context, e.choices) for e in encoded])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("fields", [{"window": 6, "window_layers": (0, 2)}, {"attn_soft_cap": 5.0}])
def test_a_tree_under_windows_and_caps(fields):
    lm, encoded = tiny_lm(**fields), passage(1)
    (found,) = score(lm.network, lm.params, [tree_item(encoded)], 1024, Meter())
    expected = np.concatenate([plain(lm, [], e.context, e.choices) for e in encoded])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("tree_tokens", [1, 100, 4096])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_scores_are_the_same_for_every_batch_and_bound(lm, tree_tokens, size):
    encoded = [e for seed in range(4) for e in passage(seed)]
    nothing = Cost(0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    task = Task("t", (), (), (), ())
    predictor = ModelPredictor(lm, task, nothing, tree_tokens=tree_tokens)
    found = [
        s for i in range(0, len(encoded), size)
        for s in predictor.scores(encoded[i : i + size], Meter())
    ]  # fmt: skip
    for e, s in zip(encoded[:5], found, strict=False):
        np.testing.assert_allclose(s, plain(lm, [], e.context, e.choices), atol=1e-4)
    assert len(found) == len(encoded)


def test_a_tree_costs_less_than_its_texts_apart(lm):
    encoded = passage(2, questions=6, length=200)
    costs = []
    for bound in (1, 4096):
        meter = Meter()
        nothing = Cost(0, 0, 0, 0.0, 0.0, 0.0, 0.0)
        predictor = ModelPredictor(lm, Task("t", (), (), (), ()), nothing, tree_tokens=bound)
        predictor.scores(encoded, meter)
        costs.append(meter.flops)
    assert costs[1] < 0.6 * costs[0]  # attention is over the longer row


def test_groups_join_what_pays_and_keep_the_bound():
    shared = list(range(100))
    near = [Encoded(shared + [i], [[1]]) for i in range(1, 6)]
    far = Encoded([7, 8, 9], [[1]])
    found = groups([*near, far], most=1000)
    assert sorted(map(sorted, found)) == [[0, 1, 2, 3, 4], [5]]
    assert max(map(len, groups(near, most=102))) == 2  # 101 tokens and one more
    few = [Encoded([1, 2, i], [[1]]) for i in range(5)]
    assert len(groups(few, most=1000)) == 5  # two tokens are not worth a longer row


def test_common_beginnings():
    assert (common([1, 2], [1, 3]), common([1], [1, 2]), common([], [1])) == (1, 1, 0)


def test_a_fixed_prefix_and_trees_behind_it(lm):
    """Demonstrations prefilled, passages behind them as trees: as one pass each."""
    from lmlite.icl.score import prefill

    head = [3, 5, 7, 9]
    encoded = [Encoded(head + e.context, e.choices) for e in passage(3)]
    prefix = prefill(lm.network, lm.params, head, 1024, Meter())
    nothing = Cost(0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    predictor = ModelPredictor(lm, Task("t", (), (), (), ()), nothing)
    predictor = dataclasses.replace(predictor, prefix_ids=tuple(head), prefix=prefix)
    for e, s in zip(encoded, predictor.scores(encoded, Meter()), strict=True):
        np.testing.assert_allclose(s, plain(lm, [], e.context, e.choices), atol=1e-4)
