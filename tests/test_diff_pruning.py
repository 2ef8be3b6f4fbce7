"""Diff pruning: the gates' formulas, the budget after folding, and what training does to them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_encoder, tiny_lm

from lmlite import tree
from lmlite.adapt import METHODS, attach, diff_pruning
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.tuned import Tuned
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.runtime import Meter
from lmlite.train import Settings, fit

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


def test_the_largest_changes_of_all_layers_are_kept():
    lm = tiny_lm(layers=2)
    method = METHODS["diff_pruning"](targets=QV, fraction=0.1)
    adapted, _ = attach(method, lm, jax.random.key(0))
    draw, flat = np.random.default_rng(0), tree.flatten(adapted.params)
    moved = {p: draw.normal(size=x.shape) if "/diff" in p else x for p, x in flat.items()}
    changes = {
        path.removesuffix("/diff"): np.asarray(diff_pruning.middle(moved[f"{path}_gate"])) * diff
        for path, diff in moved.items()
        if path.endswith("/diff")
    }
    mask, added, rate = method.following(tree.unflatten(moved))
    found, kept, dropped = tree.flatten(added), [], []
    for path, change in changes.items():
        index, values = found[f"{path}/mask_index"], found[f"{path}/mask_values"]
        np.testing.assert_allclose(values, change.ravel()[index], rtol=1e-5)
        kept += [*np.abs(values)]
        dropped += [*np.abs(np.delete(change.ravel(), index))]
    assert len(kept) == round(0.1 * sum(c.size for c in changes.values()))
    assert min(kept) >= max(dropped) - 1e-6
    assert (mask.targets, rate) == (QV, method.kept_learning_rate)
    whole = tree.flatten(method.merge(tree.unflatten(moved)))
    for path, change in changes.items():
        kernel = f"{path}/kernel"
        np.testing.assert_allclose(whole[kernel], flat[kernel] + change, atol=1e-5)


OPTIM = dict(learning_rate=1e-2, warmup=0.0, groups=(("gate", ("learning_rate", 0.5)),),
             schedule="constant", accumulate=1, clip_norm=1.0)  # fmt: skip
EXAMPLES = tuple(Example(f"{i}", f"{i}?", ("a", "b"), i % 2, f"{i}") for i in range(8))
TASK = Task("t", ("a", "b"), EXAMPLES, (), EXAMPLES)
ARM = Tuned(
    METHODS["diff_pruning"](targets=QV, fraction=0.05, strength=5.0), Settings(8, 4, 0, OPTIM)
)


def test_training_closes_gates_then_trains_what_is_kept(tmp_path):
    lm, data = tiny_lm(layers=1), Labelled(EXAMPLES, ())
    start = ARM.start(lm, TASK, data, 0, Meter())
    found = tree.flatten(fit(*start, 0, Meter()).params)
    gates = [leaf for path, leaf in found.items() if path.endswith("diff_gate")]
    assert np.mean([np.mean(diff_pruning.likely_open(g)) for g in gates]) < 0.9
    before = tree.flatten(ARM.method.following(tree.unflatten(found)).added)
    predictor = ARM.fit(lm, TASK, data, 0, Log(tmp_path / "run"))
    after = tree.flatten(predictor.adaptation.params)
    assert after.keys() == before.keys()
    for path, leaf in before.items():
        moved = np.abs(leaf - after[path]).max()
        assert moved == 0 if path.endswith("mask_index") else moved > 1e-4
    base, tuned = (tree.flatten(x.params) for x in (lm, predictor.lm))
    changed = sum(int((tuned[p] != base[p]).sum()) for p in base)
    assert 0 < changed <= predictor.cost.trainable_params
    assert predictor.cost.trainable_params == round(0.05 * sum(g.size for g in gates))
    again = ARM.fit(lm, TASK, data, 0, Log(tmp_path / "run"))  # from its last checkpoints
    for path, leaf in tree.flatten(again.adaptation.params).items():
        np.testing.assert_array_equal(leaf, after[path])


def test_the_head_of_an_encoder_goes_on_too():
    lm, data = tiny_encoder(), Labelled(EXAMPLES, ())
    start = ARM.start(lm, TASK, data, 0, Meter())
    result = fit(*start, 0, Meter())
    arm, second = ARM._following(lm, start, result, ARM.method.following(result.params))
    np.testing.assert_array_equal(
        second.adapted.params["probe"]["kernel"], result.params["probe"]["kernel"]
    )
    trained = {label for label in second.labels.values() if label != tree.FROZEN}
    assert trained == {"mask", tree.HEAD}
    predictor = ARM.fit(lm, TASK, data, 0, Log())
    kernels = [x["probe"]["kernel"] for x in (result.params, predictor.lm.params)]
    assert np.abs(np.subtract(*kernels)).max() > 1e-3


def test_settings_that_cannot_be():
    with pytest.raises(UserError, match="fraction=0 must be above 0, at most 1"):
        METHODS["diff_pruning"](fraction=0)
    with pytest.raises(UserError, match="strength=-1 is negative"):
        dataclasses.replace(METHODS["diff_pruning"](), strength=-1)
    with pytest.raises(UserError, match="DiffPruning trains twice; use it by itself"):
        METHODS["joined"]((METHODS["diff_pruning"](), METHODS["norms"]()))
