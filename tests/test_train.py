"""Training: only labelled leaves move, a resumed run is the uninterrupted one, NaN stops it."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_lm import tiny_lm

from lmlite import loop, train, tree
from lmlite.adapt import METHODS, attach
from lmlite.checkpoint import Checkpoints
from lmlite.data.epochs import Epochs
from lmlite.data.item import choice_item, class_item
from lmlite.data.pack import pack
from lmlite.errors import UserError
from lmlite.optim import Optimizer
from lmlite.runtime import Meter, Program, stream
from lmlite.states import StateStore, first_trained_layer
from lmlite.step import step, trained_network

OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="linear", warmup=0.1, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip
CHOSEN = ("full", "last_layers", "norms", "lora")


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(scale=3.0)


def items(n, seed=0, choices=1):
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        query = draw.integers(0, 256, draw.integers(3, 30))
        out.append(choice_item(list(query), [[int(query[-1]) // 2], [3]][:choices]))
    return out


def settings(epochs=3, patience=0, **optim):
    return train.Settings(epochs, 4, patience, {**OPTIM, **optim})


def run(lm, method="lora", directory=None, meter=None, log=lambda s, v: None, **kwargs):
    adapted, labels = attach(METHODS[method](), lm, stream(0, "init"))
    result = train.fit(
        adapted, labels, items(10), items(4, 1, 2), [0] * 4, settings(**kwargs), 0,
        meter or Meter(), directory, log,
    )  # fmt: skip
    return adapted, labels, result


@pytest.mark.parametrize("method", CHOSEN)
def test_only_labelled_leaves_move(lm, method):
    adapted, labels, result = run(lm, method, epochs=1)
    before, after = tree.flatten(adapted.params), tree.flatten(result.params)
    assert before.keys() == after.keys()
    for path, label in labels.items():
        same = np.array_equal(before[path], after[path])
        assert same == (label == tree.FROZEN), path


@pytest.mark.parametrize("method", CHOSEN)
def test_loss_falls_and_history_is_told(lm, method):
    seen = []
    *_, result = run(lm, method, epochs=4, log=lambda step, values: seen.append((step, values)))
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0]
    assert [step for step, _ in seen] == [3, 6, 9, 12] and result.steps == 12
    assert [values["loss"] for _, values in seen] == losses


@pytest.mark.parametrize("method", ["lora", "last_layers"])
def test_interrupted_and_resumed_is_bit_equal(lm, method, tmp_path):
    *_, whole = run(lm, method, tmp_path / "a", epochs=4)

    class Killed(Exception):
        pass

    def kill(step, values):
        if step == 6:  # after the second epoch, before its checkpoint
            raise Killed

    with pytest.raises(Killed):
        run(lm, method, tmp_path / "b", epochs=4, log=kill)
    *_, resumed = run(lm, method, tmp_path / "b", epochs=4)
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]
    for path, leaf in tree.flatten(whole.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(resumed.params)[path])


class Counting:
    """A job whose epochs cost what a meter can be asked for."""

    def __init__(self):
        self.meter = Meter()

    def start(self):
        return {"epoch": np.asarray(0)}

    def finished(self, state):
        return state["epoch"] == 3

    def step(self, state):
        return int(state["epoch"])

    def epoch(self, state):
        time.sleep(0.05)
        self.meter.flops += 10
        self.meter.bytes += 4
        self.meter.compile_seconds += 0.02
        return {"epoch": state["epoch"] + 1}, {}


def test_a_stop_loses_no_cost(tmp_path):
    """Of the two epochs that a checkpoint has, and of all three when nothing is left to train."""

    def stop(step, values):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(Counting(), tmp_path, stop)
    for earlier in (2, 3):
        job = Counting()
        loop.run(job, tmp_path, lambda step, values: None)
        assert (job.meter.flops, job.meter.bytes) == (30, 12)
        assert job.meter.compile_seconds == pytest.approx(0.06)
        assert job.meter.owed >= 0.05 * earlier  # it passed under another meter


def test_checkpoint_of_other_settings_is_refused(lm, tmp_path):
    run(lm, "lora", tmp_path, epochs=1)
    with pytest.raises(UserError, match="does not fit this run.*another workdir"):
        run(lm, "norms", tmp_path, epochs=1)


def test_a_damaged_checkpoint_is_told_of(lm, tmp_path):
    run(lm, "lora", tmp_path, epochs=1)
    (folder,) = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    for file in (folder / "index").rglob("*"):
        file.write_text("{")
    with pytest.raises(UserError, match="is damaged .*; delete that folder to train anew"):
        run(lm, "lora", tmp_path, epochs=1)


def test_a_full_disk_is_told_of_and_the_checkpoint_before_stays(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    kept.save(0, {"a": np.arange(3.0)})

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing\nx: No space left on device")

    monkeypatch.setattr(kept._manager, "save", full)
    with pytest.raises(UserError, match="cannot write a checkpoint to .*No space left.*room") as e:
        kept.save(1, {"a": np.zeros(3)})
    assert "\n" not in str(e.value)
    np.testing.assert_array_equal(kept.restore({"a": np.zeros(3)})["a"], np.arange(3.0))
    kept.close()


def test_nan_stops_with_the_step_and_keeps_the_checkpoint(lm, tmp_path, monkeypatch):
    broken = dataclasses.replace(lm, params=jax.tree.map(lambda x: x * jnp.nan, lm.params))
    with pytest.raises(UserError, match=r"loss is nan.*at step 0; lower learning_rate=0.01"):
        run(broken, "norms", epochs=2)
    good, calls = train.train_step, []

    def fifth_diverges(*args):
        calls.append(1)
        moved, opt, values = good(*args)
        return moved, opt, {**values, "loss": jnp.nan} if len(calls) == 5 else values

    monkeypatch.setattr(train, "train_step", fifth_diverges)
    with pytest.raises(UserError, match=r"loss is nan.*at step 4"):
        run(lm, "norms", tmp_path, epochs=3)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]  # the first epoch's


def test_early_stopping_keeps_the_best_epoch(lm):
    *_, free = run(lm, "full", epochs=8, learning_rate=0.05)
    dev = [row["dev_loss"] for row in free.history]
    best = int(np.argmin(dev))
    *_, stopped = run(lm, "full", epochs=8, learning_rate=0.05, patience=1)
    first_worse = next((i for i in range(1, 8) if dev[i] >= min(dev[:i])), 7)
    assert len(stopped.history) == first_worse + 1
    assert best < 7 or len(free.history) == 8


def test_frozen_states_change_nothing(lm, monkeypatch):
    assert first_trained_layer({"layers_3/a": "x", "layers_1/b": tree.FROZEN}, 4) == 3
    assert first_trained_layer({"norm/scale": "x"}, 4) == 4
    assert first_trained_layer({"embed/embedding": "x", "layers_3/a": "x"}, 4) == 0
    *_, cached = run(lm, "last_layers")
    monkeypatch.setattr(StateStore, "states", lambda *args: None)
    *_, recomputed = run(lm, "last_layers")
    for path, leaf in tree.flatten(cached.params).items():
        np.testing.assert_allclose(leaf, tree.flatten(recomputed.params)[path], atol=1e-5)


def step_flops(lm, method, metrics):
    """FLOPs of a compiled step, with and without the norm of the gradients among its results."""
    adapted, labels = attach(METHODS[method](), lm, stream(0, "init"))
    moving, frozen = tree.split(adapted.params, labels)
    pairs = tuple((path, labels[path]) for path in tree.flatten(moving))
    optimizer = Optimizer(steps=4, labels=pairs, learning_rate=1e-3, clip_norm=0.0)
    (batch,) = pack(items(4), 128, 1)

    def told(*args):
        moved, state, values = step(*args)
        return moved, state, values if metrics else values["loss"]

    opt, rates = optimizer.build().init(moving), optimizer.rates()
    key = stream(0, "dropout")
    args = adapted.network, optimizer.rule, 0, 0.0, moving, opt, rates, frozen, batch, None, key
    return Program(told, static=4).compile(Meter(), *args)[1], opt, moving


@pytest.mark.parametrize("method", [*CHOSEN, "bias", "prompt_tuning"])
def test_logging_the_gradient_norm_costs_nothing(method, monkeypatch):
    """Nor does it bring frozen leaves back: gradients and moments are of what trains alone."""
    lm, told, norm = tiny_lm(layers=3, qkv_bias=True), [], optax.tree.norm
    monkeypatch.setattr(optax.tree, "norm", lambda grads: told.append(grads) or norm(grads))
    with_norm, opt, moving = step_flops(lm, method, True)
    without, *_ = step_flops(lm, method, False)
    assert without < with_norm <= 1.02 * without
    shapes = {path: x.shape for path, x in tree.flatten(moving).items()}
    assert {path: x.shape for path, x in tree.flatten(told[0]).items()} == shapes
    moments = [x.shape for x in jax.tree.leaves(opt) if x.ndim]
    assert sorted(moments) == sorted(2 * list(shapes.values()))


def test_last_layers_cost_a_part_of_full(lm):
    flops = {method: step_flops(lm, method, True)[0] for method in ("full", "last_layers")}
    assert flops["last_layers"] < 0.75 * flops["full"]


def remat_step(lm, method, remat, **hyper):
    """(the compiled step, its result) of a batch, with or without activation checkpointing."""
    adapted, labels = attach(METHODS[method](**hyper), lm, stream(0, "init"))
    moving, frozen = tree.split(adapted.params, labels)
    pairs = tuple((path, labels[path]) for path in tree.flatten(moving))
    optimizer = Optimizer(steps=4, labels=pairs, learning_rate=1e-3)
    (batch,) = pack(items(16), 64, 8)
    network = trained_network(adapted.network, remat)
    program = Program(step, static=4)
    args = network, optimizer.rule, 0, 0.0, moving, optimizer.build().init(moving)
    args += optimizer.rates(), frozen, batch, None, stream(0, "dropout")
    return program.compile(Meter(), *args)[0], program(Meter(), *args)


@pytest.mark.parametrize(
    "method, hyper",
    [("lora", dict(dropout=0.5)), ("prompt_tuning", dict(length=4))],
)
def test_recomputed_blocks_change_no_gradient(lm, method, hyper):
    (_, kept), (_, again) = (remat_step(lm, method, remat, **hyper) for remat in ("none", "block"))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7)
    jax.tree.map(close, kept[2], again[2])  # loss and gradient norm
    jax.tree.map(functools.partial(close, atol=1e-6), kept[1], again[1])  # moments: the gradient


def test_recomputed_blocks_take_less_memory():
    lm = tiny_lm(scale=3.0, layers=8)
    kept, again = (
        remat_step(lm, "lora", remat)[0].memory_analysis().temp_size_in_bytes
        for remat in ("none", "block")
    )
    assert again < 0.5 * kept
    with pytest.raises(UserError, match="train.remat='layer' is unknown"):
        trained_network(lm.network, "layer")


def test_optimizer_groups_and_errors():
    labels = (("a", "x"), ("b", "y"))
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    groups = (("y", ("learning_rate", 0.0)),)
    common = dict(steps=4, labels=labels, learning_rate=0.1, warmup=0.0)
    tx = Optimizer(groups=groups, **common).build()
    updates, _ = tx.update(params, tx.init(params), params)
    assert np.all(updates["b"] == 0) and np.all(updates["a"] < 0)
    beside = {"labels": (("a", "x"), ("b", tree.HEAD))}
    headed = Optimizer(**common | beside, head_learning_rate=7.0, schedule="constant")
    assert {name: rate.learning_rate[0] for name, rate in headed.rates().items()} == {
        "x": np.float32(0.1), tree.HEAD: 7.0
    }  # fmt: skip
    with pytest.raises(UserError, match="optim.groups names 'z'"):
        Optimizer(groups=(("z", ("learning_rate", 0.0)),), **common).build()
    several = (("y", ("factor", 0.5)), ("y", ("weight_decay", 0.3)))
    rates = Optimizer(groups=several, schedule="constant", **common).rates()["y"]
    assert rates.learning_rate[0] == np.float32(0.05) and rates.weight_decay == np.float32(0.3)
    decayed = dict(groups=((tree.HEAD, ("weight_decay", 0.3)),), head_learning_rate=7.0)
    rates = Optimizer(**common | beside, **decayed, schedule="constant").rates()[tree.HEAD]
    assert rates.learning_rate[0] == 7.0 and rates.weight_decay == np.float32(0.3)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(optim={"schedule": "zigzag"}), "optim.schedule='zigzag' is unknown"),
        (dict(optim={"accumulate": 0}), "optim.accumulate=0 must be a whole number of at least 1"),
        (dict(optim={"groups": (("b", ("lr", 0.1)),)}), "optim.groups: 'lr' of 'b' is unknown"),
        (dict(batch_size=0), "train.batch_size=0 must be at least 1"),
        (dict(patience=-1), "train.patience=-1 must be a whole number of epochs, 0 for none"),
        (dict(patience=1.5), "train.patience=1.5 must be a whole number"),
        (dict(focal_gamma=-1.0), "train.focal_gamma=-1.0 at least 0"),
        (dict(optim={"clip_norm": -1}), "optim.clip_norm=-1 must be a number of at least 0"),
        (dict(optim={"learning_rate": -1e-3}), "optim.learning_rate=-0.001 must be a number"),
        (dict(optim={"learning_rate": "1e-3"}), "optim.learning_rate='1e-3' must be a number"),
        (dict(optim={"warmup": 5}), "optim.warmup=5 must be .* at least 0 and at most 1"),
        (dict(optim={"weight_decay": -1.0}), "optim.weight_decay=-1.0 must be a number"),
        (dict(optim={"accumulate": 1.5}), "optim.accumulate=1.5 must be a whole number"),
        (dict(optim={"beta2": 1.0}), "optim.beta2=1.0 must be"),
        (dict(optim={"groups": (("b", ("starts", 2.0)),)}), "starts of b=2.0 must be"),
        (dict(optim={"groups": ("b", ("starts", 0.5))}), r"'b' is not \(label, \(field, value\)"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_runs(fields, message):
    given = dict(epochs=1, batch_size=4, patience=0, optim=OPTIM) | fields
    with pytest.raises(UserError, match=message):
        train.Settings(**given)


def test_more_accumulation_than_batches_would_update_nothing(lm):
    with pytest.raises(UserError, match="optim.accumulate=99 is more than the 6 batches"):
        run(lm, "lora", epochs=2, accumulate=99)


def test_the_program_is_the_same_in_every_process():
    labels = tuple((name, name) for name in "qwertyuiop")  # a set's order changes with the process
    optimizer = Optimizer(steps=4, labels=labels, learning_rate=1e-3, clip_norm=0.0)
    state = optimizer.build().init({name: jnp.ones(2) for name, _ in labels})
    groups = next(x for x in jax.tree.leaves(state, is_leaf=_partitioned) if _partitioned(x))
    assert list(groups.inner_states) == sorted("qwertyuiop")


def _partitioned(state) -> bool:
    return hasattr(state, "inner_states")


def test_accumulation_equals_one_large_batch():
    labels = (("a", "x"),)
    common = dict(steps=4, labels=labels, learning_rate=0.1, warmup=0.0, schedule="constant")
    params = {"a": jnp.ones(2)}
    grads = [{"a": jnp.array([1.0, 3.0])}, {"a": jnp.array([3.0, -1.0])}]
    one = Optimizer(**common).build()
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
    expected, _ = one.update(mean, one.init(params), params)
    two = Optimizer(accumulate=2, **common).build()
    state = two.init(params)
    for grad in grads:
        updates, state = two.update(grad, state, params)
    np.testing.assert_allclose(updates["a"], expected["a"], rtol=1e-6)


def test_seeds_share_the_shapes_of_their_batches():
    draw = np.random.default_rng(0)
    items = [class_item(draw.integers(1, 99, n), range(2)) for n in draw.integers(5, 60, 48)]
    shapes = [
        {batch.ids.shape for e in range(12) for batch in Epochs(items, 8, 12, seed, 256).batches(e)}
        for seed in range(8)
    ]
    assert len(set.union(*shapes)) == max(map(len, shapes))


def test_answers_of_any_length_train_in_one_shape():
    """Written answers differ in length; a step must not compile anew for each batch of them."""
    draw = np.random.default_rng(0)
    lengths = zip(draw.integers(5, 30, 24), draw.integers(1, 40, 24), strict=True)
    items = [choice_item(draw.integers(1, 99, n), [draw.integers(1, 99, m)]) for n, m in lengths]
    shapes = {
        tuple(array.shape for array in batch)
        for seed in range(4)
        for epoch in range(6)
        for batch in Epochs(items, 8, 6, seed, 256).batches(epoch)
    }
    assert len(shapes) == 1, shapes
