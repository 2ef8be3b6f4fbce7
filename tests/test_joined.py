"""Methods joined in one arm: each part is what it is alone, and all of them train."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_lm import tiny_lm

from configs import common
from lmlite import arms, tree
from lmlite.adapt import METHODS, Adaptation, attach
from lmlite.arms.arm import Labelled, Log
from lmlite.data.task import Example, Task
from lmlite.errors import UserError

IDS = [[5, 9, 30, 7]]
LORA, PROMPT = METHODS["lora"](), METHODS["prompt_tuning"](length=4)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=2)


def test_it_computes_what_the_parts_do_one_after_the_other(lm):
    key = jax.random.key(0)
    joined, labels = attach(METHODS["joined"](parts=(LORA, PROMPT)), lm, key)
    draw = np.random.default_rng(0)
    moved = tree.flatten(joined.params)
    for path, leaf in moved.items():
        if labels[path] != tree.FROZEN:
            moved[path] = leaf + 0.1 * draw.normal(size=leaf.shape)
    assert set(labels.values()) == {"lora_a", "lora_b", "prompt", tree.FROZEN}
    found = dataclasses.replace(joined, params=tree.unflatten(moved)).logits(IDS)
    own = {name: {path: leaf for path, leaf in moved.items() if labels[path].startswith(name)}
           for name in ("lora", "prompt")}  # fmt: skip
    one = Adaptation(LORA, tree.unflatten(own["lora"])).on(lm)
    both = Adaptation(PROMPT, tree.unflatten(own["prompt"])).on(one)
    np.testing.assert_allclose(found, both.logits(IDS), atol=1e-5)
    assert np.abs(found - one.logits(IDS)).max() > 1e-2


FISH = METHODS["fish_mask"](fraction=0.1)
PAIRS = {
    "other modules": (METHODS["lora"](r"layers_\d+/attn/q"), METHODS["dora"](r"layers_\d+/mlp/up")),
    "beside all": (PROMPT, METHODS["full"]()),
    "beside all, held": (METHODS["l2_sp"](), PROMPT),
    "beside a mask": (LORA, FISH),
    "two kinds": (METHODS["adapter"](width=2), METHODS["parallel_adapter"](width=2)),
}


@pytest.mark.parametrize(
    "first, second, message",
    [
        ("lora", "dora", "LoRA and DoRA both add layers_0/attn/q/lora_a; keep one"),
        ("dora", "vera", "DoRA computes with the kernel of layers_0/attn/q, which VeRA changes"),
        ("pissa", "vera", "PiSSA computes with the kernel of layers_0/attn/q"),
    ],
)
def test_parts_that_meet(lm, first, second, message):
    joined = METHODS["joined"](parts=(METHODS[first](), METHODS[second]()))
    with pytest.raises(UserError, match=message):
        attach(joined, lm, jax.random.key(0))


def test_a_part_that_computes_with_kernels_is_attached_first(lm):
    joined = METHODS["joined"](parts=(METHODS["vera"](), METHODS["dora"]()))
    on_base, _ = attach(joined, lm, jax.random.key(0))
    np.testing.assert_allclose(on_base.logits(IDS), lm.logits(IDS), atol=1e-5)
    adapted, _ = attach(METHODS["ia3"](), lm, jax.random.key(0))
    for method in (joined, METHODS["pissa"]()):
        with pytest.raises(UserError, match="computes with a layer's kernel"):
            attach(method, adapted, jax.random.key(0))


@pytest.mark.parametrize("name", PAIRS)
def test_any_parts_that_fit_train_together(lm, name):
    def squares(paths):
        return {path: np.abs(tree.flatten(lm.params)[path]) for path in paths}

    joined = METHODS["joined"](parts=PAIRS[name])
    _, labels = attach(joined, lm, jax.random.key(0), squares=squares)
    trained = {label for label in labels.values() if label != tree.FROZEN}
    each = [attach(part, lm, jax.random.key(0), squares=squares)[1] for part in PAIRS[name]]
    assert trained == {x for own in each for x in own.values() if x != tree.FROZEN}
    assert labels.keys() == {path for own in each for path in own}


def test_the_default_arm_trains_both(lm):
    made = [(f"{i}", f"{'xy'[i % 2]}{i}?", i % 2) for i in range(8)]
    examples = tuple(Example(i, text, ("a", "b"), target, i) for i, text, target in made)
    task = Task("t", ("a", "b"), examples, (), examples)
    spec = common.methods()["lora-and-prompt"].to_dict()
    spec["train"] |= dict(epochs=3)
    losses = []
    log = Log(scalars=lambda step, values: losses.append(values["loss"]))
    predictor = arms.build(spec).fit(lm, task, Labelled(examples, ()), 0, log)
    assert losses[-1] < losses[0]
    own = tree.flatten(predictor.adaptation.params)
    assert {path.rpartition("/")[2] for path in own} == {"lora_a", "lora_b", "prompt"}
    assert all(np.abs(leaf).max() > 0 for leaf in own.values())


def test_what_computes_with_one_kernel_or_starts_elsewhere_goes_alone(lm):
    key, mask = jax.random.key(0), METHODS["sparse_mask"](choose="random", fraction=0.1)
    for parts in ((METHODS["pissa"](), mask), (mask, METHODS["pissa"]())):
        with pytest.raises(UserError, match="computes with the kernel of .*; keep one of them"):
            METHODS["joined"](parts=parts).init(lm, key, 0)
    with pytest.raises(UserError, match="elsewhere than the pretrained model.*keep one of them"):
        METHODS["joined"](parts=(METHODS["pissa"](), METHODS["l2_sp"]())).init(lm, key, 0)


def test_parts_that_do_not_go_together():
    with pytest.raises(UserError, match="fewer than two methods"):
        METHODS["joined"](parts=(LORA,))
    with pytest.raises(UserError, match="more than one has a virtual; keep one"):
        METHODS["joined"](parts=(PROMPT, METHODS["prefix_tuning"](length=2)))
