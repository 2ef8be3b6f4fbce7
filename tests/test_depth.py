"""Learning rates and times by depth: layer-wise decay and gradual unfreezing, in every role."""

import dataclasses

import numpy as np
import parity
import pytest
from tiny_lm import tiny_lm

import lmlite
from lmlite import tree
from lmlite.adapt import METHODS
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.tuned import Tuned
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.optim import Optimizer
from lmlite.runtime import Meter
from lmlite.train import Settings


def rates(method, labels, lm, steps=8):
    """float32[steps] of each label."""
    optimizer = Optimizer(steps, tuple(labels.items()), 2.0, schedule="constant", warmup=0.0,
                          groups=method.groups(lm))  # fmt: skip
    return {label: rate.learning_rate for label, rate in optimizer.rates().items()}


def test_each_depth_learns_at_its_own_rate_or_time():
    lm = tiny_lm(layers=2)
    labels = tree.label(lm.params, METHODS["layerwise"]().rules(lm))
    found = rates(METHODS["layerwise"](decay=0.5), labels, lm)
    assert [found[name][0] for name in ("top", "layer_1", "layer_0", "bottom")] == [2, 1, 0.5, 0.25]
    found = rates(METHODS["gradual_unfreezing"](until=1.0), labels, lm)
    starts = {label: int(np.argmax(rate > 0)) for label, rate in found.items() if rate.any()}
    assert starts == {"top": 0, "layer_1": 0, "layer_0": 4} and not found["bottom"].any()
    for wrong in (dict(decay=0.0), dict(decay=1.5)):
        with pytest.raises(UserError, match="must be above 0, at most 1"):
            METHODS["layerwise"](**wrong)
    with pytest.raises(UserError, match="until=2 must be between 0 and 1"):
        METHODS["gradual_unfreezing"](until=2)


def test_a_frozen_block_stays_to_the_bit_until_its_turn():
    lm = tiny_lm(layers=2)
    examples = tuple(Example(f"{i}", f"{i}?", ("a", "b"), i % 2, f"{i}") for i in range(4))
    task = Task("t", ("a", "b"), examples, (), examples)
    optim = dict(learning_rate=1e-3, warmup=0.0, accumulate=1, clip_norm=1.0)
    arm = Tuned(METHODS["gradual_unfreezing"](until=1.0), Settings(1, 4, 0, optim))
    found = arm.fit(lm, task, Labelled(examples, ()), 0, Log()).lm.params  # one update in all
    for path, leaf in tree.flatten(found).items():
        moved = bool((leaf != tree.flatten(lm.params)[path]).any())
        assert moved == path.startswith(("layers_1/", "norm/")), path


def test_an_encoder_with_nothing_above_its_blocks(tmp_path):
    parity.write(tmp_path / "a", **parity.cases()["distilbert_headless"])
    lm = dataclasses.replace(lmlite.load(tmp_path / "a"), tokenizer=tiny_lm(layers=1).tokenizer)
    examples = tuple(Example(f"{i}", f"{i}?", ("a", "b"), i % 2, f"{i}") for i in range(4))
    task = Task("t", ("a", "b"), examples, (), examples)
    optim = dict(learning_rate=1e-3, warmup=0.0, accumulate=1, clip_norm=1.0)
    arm = Tuned(METHODS["layerwise"](), Settings(1, 4, 0, optim))
    found = arm.start(lm, task, Labelled(examples, ()), 0, Meter())
    assert "top" not in found.labels.values() and found.settings.optim["groups"]


def test_layerwise_labels_of_every_role(tmp_path):
    for case in ("t5", "bart", "bert"):
        parity.write(tmp_path / case, **parity.cases()[case])
        lm = lmlite.load(tmp_path / case)
        labels = tree.label(lm.params, METHODS["layerwise"]().rules(lm))
        depths = [label for label, _ in METHODS["layerwise"]().groups(lm)]
        assert set(labels.values()) == set(depths) and depths[-1] == "bottom"
        assert labels["layers_0/mlp/up/kernel"] == "layer_0"
        if lm.config.cross:
            assert labels["encoder/layers_1/mlp/up/kernel"] == "encoder_1"
            assert depths.index("encoder_1") > depths.index("layer_0")
