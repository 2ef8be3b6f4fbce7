"""Diff pruning: the gates' formulas, the budget after folding, and what training does to them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite import tree
from lmlite.adapt import METHODS, attach, diff_pruning
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.tuned import Tuned
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.train import Settings

QV = r"layers_\d+/attn/(q|v)"


def test_gates_are_hard_concrete():
    alpha = np.linspace(-3, 3, 7)
    s = 1 / (1 + np.exp(-alpha))
    np.testing.assert_allclose(diff_pruning.middle(alpha), np.clip(3 * s - 1.5, 0, 1), atol=1e-6)
    draws = jax.vmap(lambda key: diff_pruning.drawn(jnp.asarray(alpha), key))(
        jax.random.split(jax.random.key(0), 20000)
    )
    u = np.random.default_rng(0).random((20000, 7))
    noisy = 1 / (1 + np.exp(-(np.log(u / (1 - u)) + alpha)))
    expected = np.clip(3 * noisy - 1.5, 0, 1)
    np.testing.assert_allclose(draws.mean(0), expected.mean(0), atol=0.02)
    np.testing.assert_allclose((draws > 0).mean(0), diff_pruning.likely_open(alpha), atol=0.02)


def test_folding_keeps_the_largest_changes_of_all_layers():
    lm = tiny_lm(layers=2)
    method = METHODS["diff_pruning"](targets=QV, fraction=0.1)
    adapted, _ = attach(method, lm, jax.random.key(0))
    draw, flat = np.random.default_rng(0), tree.flatten(adapted.params)
    moved = {p: draw.normal(size=x.shape) if "/diff" in p else x for p, x in flat.items()}
    folded = tree.flatten(method.merge(tree.unflatten(moved)))
    base = tree.flatten(lm.params)
    changes = {p: np.asarray(folded[p] - base[p]) for p in base}
    total = sum(x.size for p, x in flat.items() if p.endswith("/diff"))
    assert sum(np.count_nonzero(c) for c in changes.values()) == int(0.1 * total)
    wanted = {}
    for path in (p for p in flat if p.endswith("/diff")):
        gate = np.asarray(diff_pruning.middle(moved[f"{path}_gate"]))
        wanted[path.removesuffix("diff") + "kernel"] = gate * moved[path]
    assert all(not c.any() for p, c in changes.items() if p not in wanted)
    kept = [np.abs(c[c != 0]).min() for c in changes.values() if c.any()]
    dropped = max(np.abs(wanted[p])[changes[p] == 0].max() for p in wanted)
    assert min(kept) >= dropped - 1e-5


def test_training_closes_gates_and_stays_in_the_budget():
    lm = tiny_lm(layers=1)
    examples = tuple(Example(f"{i}", f"{i}?", ("a", "b"), i % 2, f"{i}") for i in range(8))
    task = Task("t", ("a", "b"), examples, (), examples)
    optim = dict(learning_rate=1e-2, warmup=0.0, groups=(("gate", ("learning_rate", 0.5)),),
                 schedule="constant", accumulate=1, clip_norm=1.0)  # fmt: skip
    method = METHODS["diff_pruning"](targets=QV, fraction=0.05, strength=5.0)
    predictor = Tuned(method, Settings(8, 4, 0, optim)).fit(
        lm, task, Labelled(examples, ()), 0, Log()
    )
    own = tree.flatten(predictor.adaptation.params)
    gates = [leaf for path, leaf in own.items() if path.endswith("diff_gate")]
    assert np.mean([np.mean(diff_pruning.likely_open(g)) for g in gates]) < 0.9
    before, after = (tree.flatten(x.params) for x in (lm, predictor.lm))
    changed = sum(int((after[p] != before[p]).sum()) for p in before)
    assert 0 < changed <= 0.05 * sum(g.size for g in gates)


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="fraction=0 must be above 0, at most 1"):
        METHODS["diff_pruning"](fraction=0)
    with pytest.raises(UserError, match="strength=-1 is negative"):
        dataclasses.replace(METHODS["diff_pruning"](), strength=-1)
