"""Arms fitted together: each as if alone, the frozen weights read once, padding that stays zero."""

import dataclasses
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite import arms, joint, joint_score, tree
from lmlite.adapt import METHODS
from lmlite.arms import choices, together
from lmlite.arms.arm import Log
from lmlite.arms.tuned import Tuned
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.runtime import Meter, PeakMemory
from lmlite.stacking import shared, stack, unstack
from lmlite.train import Settings

OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="linear", warmup=0.1, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip
IDENTITY = dict(arm="a", family="f", task="t", split="test", seed=0)
LINEAR = r"layers_\d+/(attn|mlp)/\w+"


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(scale=3.0, hidden=80, layers=2)  # a width that no other axis has


@pytest.fixture(scope="module")
def task():
    draw = np.random.default_rng(0)
    examples = tuple(
        Example(
            str(i), "".join(draw.choice(list("abc "), draw.integers(4, 30))), ("x", "yy"), i % 2, ""
        )
        for i in range(17)
    )
    return Task("letters", ("x", "yy"), examples[:11], examples[11:], examples[11:])


@pytest.fixture(scope="module")
def data(task):
    return arms.Labelled(task.train, task.dev)


def arm(method="lora", epochs=3, patience=0, remat="none", optim=None, **hyper):
    settings = Settings(epochs, 4, patience, {**OPTIM, **(optim or {})}, remat)
    return Tuned(METHODS[method](**hyper), settings)


def fitted(lm, task, data, jobs):
    return list(arms.fit_together(jobs, lm, task, data))


def jobs_of(*pairs, logs=None):
    logs = logs or [arms.Log() for _ in pairs]
    return [arms.Fit(one, seed, log) for (one, seed), log in zip(pairs, logs, strict=True)]


def assert_as_alone(lm, task, data, pairs):
    both = fitted(lm, task, data, jobs_of(*pairs))
    for (one, seed), found in zip(pairs, both, strict=True):
        alone = one.fit(lm, task, data, seed, arms.Log())
        assert found.cost.together == len(pairs) and alone.cost.together == 1
        assert found.cost.trainable_params == alone.cost.trainable_params
        mine, its = tree.flatten(found.lm.params), tree.flatten(alone.lm.params)
        assert mine.keys() == its.keys()
        for path, leaf in its.items():
            np.testing.assert_allclose(mine[path], leaf, atol=1e-5, err_msg=path)
        scores, own = (one.predict(task.test, Meter())[""] for one in (found, alone))
        np.testing.assert_allclose(scores, own, atol=1e-5)


def test_seeds_rates_ranks_and_schedules_of_lora(lm, task, data):
    """Twice as fast B, another schedule, a rank a layer: all in one step, all as alone."""
    faster = dict(groups=(("lora_b", ("learning_rate", 2e-2)),), schedule="cosine", warmup=0.0)
    ranks = (("layers_1/attn/q", 5),)
    assert_as_alone(lm, task, data, [
        (arm(rank=8), 0),
        (arm(rank=8, optim=dict(learning_rate=3e-3, weight_decay=0.1)), 1),
        (arm(rank=3, alpha=5.0, rank_stabilised=True, optim=faster), 0),
        (arm(rank=2, ranks=ranks, alphas=(("layers_1/attn/q", 7.0),)), 2),
    ])  # fmt: skip


@pytest.mark.parametrize(
    "method, hyper",
    [
        ("prompt_tuning", [dict(length=4), dict(length=4)]),
        ("last_layers", [dict(layers=1), dict(layers=1)]),
        ("sparse_mask", [dict(choose="random"), dict(choose="random")]),
        ("dora", [dict(rank=8), dict(rank=3)]),
        ("adapter", [dict(width=4), dict(width=2)]),
        ("prefix_tuning", [dict(length=4), dict(length=4)]),
        ("ia3", [{}, {}]),
        ("vera", [dict(rank=4), dict(rank=4)]),
    ],
)
def test_other_methods(lm, task, data, method, hyper):
    if method == "last_layers":  # of three: of two, it would outweigh what is shared
        lm = tiny_lm(scale=3.0, layers=3)
    pairs = [(arm(method, epochs=2, **h), seed) for seed, h in enumerate(hyper)]
    assert pairs[0][0].form() == pairs[1][0].form() is not None
    assert_as_alone(lm, task, data, pairs)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_beside_an_adapter_each_is_fitted_alone(lm, task, data, method):
    """The leaves of a second adapter have names of their own, which stacking does not know."""
    first = arm().fit(lm, task, data, 7, arms.Log())
    adapted = first.adaptation.on(lm)
    pairs = [(arm(method, epochs=1), 0), (arm(method, epochs=1), 1)]
    for (one, seed), found in zip(pairs, fitted(adapted, task, data, jobs_of(*pairs)), strict=True):
        alone = one.fit(adapted, task, data, seed, arms.Log())
        assert found.cost.together == 1
        scores, own = (p.predict(task.test, Meter())[""] for p in (found, alone))
        np.testing.assert_array_equal(scores, own)


def test_one_step_scores_the_items_for_all_arms(lm, task, data, monkeypatch):
    """The arm that fails has no part in it; the others are asked once, and share the cost."""
    monkeypatch.setattr("lmlite.optim._RANGES", {})  # which would refuse its rate
    pairs = (arm(rank=2), 0), (arm(optim=dict(learning_rate=float("nan"))), 1), (arm(rank=5), 2)
    one, _, other = fitted(lm, task, data, jobs_of(*pairs))
    asked, program = [], joint_score._logprobs
    monkeypatch.setattr(joint_score, "_logprobs", lambda *a: asked.append(a[6]) or program(*a))
    monkeypatch.setattr(choices, "score", lambda *a: pytest.fail("scored alone"))
    rows = [evaluate(p, task, task.test, IDENTITY, PeakMemory())[0][0] for p in (one, other)]
    assert len(asked) == 1 and sorted(set(asked[0].owner)) == list(range(len(task.test)))
    assert rows[0]["flops_per_query"] == rows[1]["flops_per_query"] > 0
    assert [row["evaluated_together"] for row in rows] == [2, 2]
    again = [p.predict(task.test, Meter())[""] for p in (one, other, other, one)]
    assert len(asked) == 3  # again for `one`, and where `other` asks for the second time
    np.testing.assert_allclose(again[1], again[2], atol=1e-6)
    assert np.abs(np.subtract(again[0], again[1])).max() > 1e-3


def test_readings_of_arms_fitted_together_are_scored_once(lm, task, data, monkeypatch):
    """What calibration has to ask is asked once for all arms too, and equal to each alone."""
    task = dataclasses.replace(task, frame="a {}".format)  # its model has no token to begin with
    pairs = [(dataclasses.replace(arm(), readings=("contextual", "batch")), s) for s in (0, 1)]
    both = fitted(lm, task, data, jobs_of(*pairs))
    asked, program = [], joint_score._logprobs
    monkeypatch.setattr(joint_score, "_logprobs", lambda *a: asked.append(a[6]) or program(*a))
    for predictor, (one, seed) in zip(both, pairs, strict=True):
        alone = one.fit(lm, task, data, seed, Log()).predict(task.test, Meter())
        found = predictor.predict(task.test, Meter())
        assert set(found) == {"", "contextual", "batch"}
        for name, scores in found.items():
            np.testing.assert_allclose(scores, alone[name], atol=1e-4)
        raw = np.exp(np.stack(found[""]))
        odds = (raw / raw.sum(-1, keepdims=True)) / (raw / raw.sum(-1, keepdims=True)).mean(0)
        expected = odds / odds.sum(-1, keepdims=True)
        np.testing.assert_allclose(np.exp(np.stack(found["batch"])), expected, atol=1e-4)
    assert len(asked) == 1  # the content-free prompts are in the batch of the test items


def test_an_unknown_reading_is_refused_before_training():
    with pytest.raises(UserError, match="reading 'magic' is unknown"):
        dataclasses.replace(arm(), readings=("magic",))


def test_a_share_of_time_is_a_share_whoever_spent_it():
    work, first, second = Meter(8.0, 3.0, 1.0, 6.0), Meter(), Meter()
    first.share(work, 5.0, 2, here=True)
    second.share(work, 5.0, 2, here=False)
    for meter, spent in ((first, 5.0), (second, 0.0)):  # what evaluate counts: without compilation
        assert spent + meter.owed - meter.compile_seconds == 2.0
        assert (meter.flops, meter.seconds, meter.bytes, meter.together) == (4.0, 1.5, 3.0, 2)


def test_each_arm_stops_by_itself(lm, task, data):
    """One arm's rate is far too high, so that it stops early; the other goes on, as if alone."""
    wild, calm = arm(epochs=6, patience=1, optim=dict(learning_rate=1.0)), arm(epochs=6)
    seen, alone = [[], []], []

    def log(to):
        return arms.Log(scalars=lambda step, values: to.append((step, values["dev_loss"])))

    fitted(lm, task, data, jobs_of((wild, 0), (calm, 1), logs=[log(to) for to in seen]))
    calm.fit(lm, task, data, 1, log(alone))
    losses = [loss for _, loss in seen[0]]
    assert 1 < len(losses) < 6 and losses[-1] >= min(losses[:-1])
    assert [step for step, _ in seen[1]] == [3, 6, 9, 12, 15, 18]
    np.testing.assert_allclose(seen[1], alone, atol=1e-5)


def test_a_diverging_arm_fails_alone(lm, task, data, monkeypatch):
    monkeypatch.setattr("lmlite.optim._RANGES", {})  # which would refuse such a rate
    broken = arm(optim=dict(learning_rate=float("nan")))
    misspelt = arm(ranks=(("layers_9/attn/q", 4),))
    pairs = (arm(), 0), (broken, 1), (arm(), 2), (misspelt, 0)
    good, bad, also, wrong = fitted(lm, task, data, jobs_of(*pairs))
    assert isinstance(bad, UserError) and re.search(r"loss is nan.*at step 1", str(bad))
    assert isinstance(wrong, UserError) and "matches no target" in str(wrong)
    assert good.cost.together == also.cost.together == 3


def test_interrupted_arms_go_on_together(lm, task, data, tmp_path):
    """Cut between the checkpoints of two arms, so that one is an epoch ahead of the other."""
    pairs = (arm(rank=2), 0), (arm(rank=4), 1)

    class Killed(Exception):
        pass

    def kill(step, values):
        if step == 6:
            raise Killed

    def logs(folder, second=lambda step, values: None):
        return [arms.Log(tmp_path / folder / "a"), arms.Log(tmp_path / folder / "b", second)]

    whole = fitted(lm, task, data, jobs_of(*pairs, logs=logs("whole")))
    with pytest.raises(Killed):
        fitted(lm, task, data, jobs_of(*pairs, logs=logs("cut", kill)))
    assert [p.name for p in (tmp_path / "cut").glob("*/*")] in (["2", "1"], ["1", "2"])
    resumed = fitted(lm, task, data, jobs_of(*pairs, logs=logs("cut")))
    for one, other in zip(whole, resumed, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.lm.params, other.lm.params)


@pytest.mark.parametrize("n", [1, 2])
def test_a_stop_loses_no_cost(lm, task, data, tmp_path, n):
    pairs = [(arm(rank=2), 0), (arm(rank=4), 1)][:n]

    def slow(step, values):
        time.sleep(0.3)
        if step == 9:
            raise KeyboardInterrupt

    def logs(folder, first=lambda step, values: None):
        places = [tmp_path / folder / str(i) for i in range(n)]
        return [arms.Log(places[0], first), *map(arms.Log, places[1:])]

    whole = fitted(lm, task, data, jobs_of(*pairs, logs=logs("whole")))
    with pytest.raises(KeyboardInterrupt):
        fitted(lm, task, data, jobs_of(*pairs, logs=logs("cut", slow)))
    resumed = fitted(lm, task, data, jobs_of(*pairs, logs=logs("cut")))
    for one, other in zip(whole, resumed, strict=True):
        assert other.cost.train_flops == pytest.approx(one.cost.train_flops)
        assert other.cost.train_bytes == pytest.approx(one.cost.train_bytes)
        assert other.cost.train_seconds > 0.3 / n and other.cost.together == n


def test_arms_that_find_no_memory_together_are_fitted_in_turn(lm, task, data, monkeypatch):
    def exhausted(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(together, "fit_jointly", exhausted)
    pairs = (arm(epochs=1), 0), (arm(epochs=1), 1)
    found = fitted(lm, task, data, jobs_of(*pairs))
    assert [p.cost.together for p in found] == [1, 1]
    monkeypatch.setattr("lmlite.train.train_step", exhausted)
    for error in fitted(lm, task, data, jobs_of(*pairs)):
        assert isinstance(error, UserError) and "ran out of memory" in str(error)
        assert error.__traceback__ is error.__context__ is None  # they would keep the arrays


def test_full_tuning_and_dropout_are_fitted_in_turn(lm, task, data):
    found = fitted(lm, task, data, jobs_of((arm("full", epochs=1), 0), (arm("full", epochs=1), 1)))
    assert [p.cost.together for p in found] == [1, 1]
    assert arm(dropout=0.1).form() is None and arm("fish_mask").form() is None
    assert arm(rank=2).form() == arm(rank=9, optim=dict(learning_rate=1.0)).form()
    assert arm().form() != arm(targets=LINEAR).form() != arm("dora", targets=LINEAR).form()


@pytest.fixture(scope="module")
def compiled(lm, task, data):
    """The compiled step of two arms, its arguments, and the parameters after it."""
    pairs = [(arm(rank=2), 0), (arm(rank=5), 1)]
    kept = []
    program = joint.joint_step

    def watch(meter, *args):
        text = program.compile(meter, *args)[0].as_text()
        result = program(meter, *args)
        kept.append((text, args, jax.tree.map(np.asarray, result[:2])))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "joint_step", watch)
        fitted(lm, task, data, jobs_of(*pairs))
    return kept


def test_base_weights_are_not_copied_an_arm(compiled):
    """No array holds an MLP's kernel [48, 80] once an arm: its product has the rows of all arms."""
    text, args, _ = compiled[0]
    rows = args[8].ids.size
    assert "f32[48,80]" in text and "f32[80,48]" in text
    assert "f32[2,48,80]" not in text and "f32[2,80,48]" not in text
    assert f"f32[{rows},80]" in text


def test_padding_stays_zero(compiled):
    for _, _, (train, opt) in compiled:
        for path, leaf in tree.flatten(train).items():
            filled = leaf[0, :, 2:] if path.endswith("lora_a") else leaf[0, 2:]
            assert filled.size and not filled.any(), path
            assert leaf[1].any()
        moments = [x for x in jax.tree.leaves(opt) if x.ndim == 3]
        assert moments and any(x[1].any() for x in moments)
        assert not any(x[0, 2:].any() and x[0, :, 2:].any() for x in moments)


def test_stacking():
    trees = [{"a": np.ones((2, 3))}, {"a": np.full((4, 1), 2.0)}]
    both = stack(trees)
    assert both["a"].shape == (2, 4, 3) and both["a"].sum() == 6 + 8
    for one, back in zip(trees, unstack(both, trees), strict=True):
        np.testing.assert_array_equal(one["a"], back["a"])
    base = jnp.ones(3)
    same, own = shared([{"x": {"a": base}, "b": base}, {"x": {"a": base}, "b": 2 * base}])
    assert same == {"x": {"a": base}} and [list(o) for o in own] == [["b"], ["b"]]
