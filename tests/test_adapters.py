"""Several adapters on one base: stacked, switched, folded, trained one over another, made LoRA."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite import tree
from lmlite.adapt import METHODS, Adaptation, attach, join
from lmlite.adapt.svd import factors, to_lora
from lmlite.errors import UserError
from lmlite.models import lm as models

IDS = np.random.default_rng(1).integers(0, 256, (2, 9))
QV, UP = r"layers_\d+/attn/(q|v)", r"layers_\d+/mlp/up"
HYPER = {
    "lora": dict(targets=QV, rank=3),
    "dora": dict(targets=QV, rank=2),
    "vera": dict(targets=QV, rank=5),
    "adapter": dict(width=3),
    "prompt_tuning": dict(length=3),
    "sparse_mask": dict(targets=UP, fraction=0.1),
}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=1)


def fitted(name, lm, seed=0, **hyper) -> Adaptation:
    """A method with every trainable leaf moved."""
    method = METHODS[name](**HYPER.get(name, {}) | hyper)
    adapted, labels = attach(method, lm, jax.random.key(seed))
    train, frozen = tree.split(adapted.params, labels)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), train)
    return Adaptation.of(method, lm, tree.merge(frozen, moved))


STACKS = [
    [("lora", {}), ("lora", dict(rank=2)), ("ia3", {}), ("vera", {}), ("vera", {})],
    [("dora", {}), ("lora", {})],
    [("sparse_mask", {}), ("lora", dict(targets=UP))],
]


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: "+".join(name for name, _ in stack))
def test_stacked_adapters_are_their_folds_in_turn(stack, lm):
    """Each wraps what came before it, whether its parameters stand beside or in the weights."""
    beside, folded = lm, lm
    for i, (name, hyper) in enumerate(stack):
        one = fitted(name, lm, seed=i, **hyper)
        beside, folded = one.on(beside), one.folded(folded)
    np.testing.assert_allclose(beside.logits(IDS), folded.logits(IDS), rtol=1e-4, atol=1e-3)
    assert np.abs(beside.logits(IDS) - fitted(stack[0][0], lm).on(lm).logits(IDS)).max() > 0.1


def test_lora_and_a_prompt_stack_in_either_order(lm):
    lora, prompt = fitted("lora", lm), fitted("prompt_tuning", lm)
    one, other = prompt.on(lora.on(lm)).logits(IDS), lora.on(prompt.on(lm)).logits(IDS)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, prompt.on(lora.folded(lm)).logits(IDS), rtol=1e-4, atol=1e-3)
    with pytest.raises(UserError, match="do not fit"):
        prompt.on(prompt.on(lm))


def test_switching_shares_the_base_and_the_compiled_program(lm):
    before = lm.logits(IDS)
    one, two = (fitted("lora", lm, seed).on(lm) for seed in (0, 1))
    for path, leaf in tree.flatten(lm.params).items():
        assert tree.flatten(one.params)[path] is leaf and tree.flatten(two.params)[path] is leaf
    assert one.network == two.network
    first, compiled = one.logits(IDS), models._logits._cache_size()
    second = two.logits(IDS)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(one.logits(IDS), first)
    np.testing.assert_array_equal(lm.logits(IDS), before)
    assert models._logits._cache_size() == compiled


def test_only_the_new_adapter_trains(lm):
    base = fitted("lora", lm).on(lm)
    adapted, labels = attach(METHODS["lora"](targets=QV, rank=2), base, jax.random.key(2))
    train = {path for path, label in labels.items() if label != tree.FROZEN}
    assert train == {f"layers_0/attn/{x}/lora_{y}.1" for x in "qv" for y in "ab"}
    np.testing.assert_array_equal(adapted.logits(IDS), base.logits(IDS))
    own = Adaptation.of(METHODS["lora"](targets=QV, rank=2), base, adapted.params)
    assert set(tree.flatten(own.params)) == {path.removesuffix(".1") for path in train}
    _, labels = attach(METHODS["full"](), base, jax.random.key(2))
    train = {path for path, label in labels.items() if label != tree.FROZEN}
    assert train == set(tree.flatten(lm.params))


def test_a_fitted_method_goes_on_training(lm):
    made = fitted("lora", lm)
    adapted, labels = join(made.method, lm, made.params)
    assert {path for path, label in labels.items() if label != tree.FROZEN} == {
        *tree.flatten(made.params)
    }
    np.testing.assert_array_equal(adapted.logits(IDS), made.on(lm).logits(IDS))


def test_what_does_not_stack_or_fold_is_told(lm):
    lora = fitted("lora", lm)
    for name in ("dora", "sparse_mask"):
        with pytest.raises(UserError, match="attach it before them, or fold them"):
            fitted(name, lm).on(lora.on(lm))
    with pytest.raises(UserError, match="fold those first"):
        lora.folded(lora.on(lm))
    with pytest.raises(UserError, match="does not fold"):
        fitted("adapter", lm).folded(lm)
    with pytest.raises(UserError, match="merge its method first"):
        fitted("prompt_tuning", lm).on(lm).save("nowhere")


@pytest.mark.parametrize("name", ["lora", "vera", "ia3", "sparse_mask", "full"])
def test_folded_weights_are_the_formula(name, lm):
    """In the base's dtype: the change is added in float32 and rounded once."""
    low = dataclasses.replace(lm, params=jax.tree.map(lambda x: x.astype("bfloat16"), lm.params))
    made = fitted(name, low)
    wide = dataclasses.replace(low, params=jax.tree.map(lambda x: x.astype("float32"), low.params))
    exact = tree.flatten(made.folded(wide).params)
    for path, leaf in tree.flatten(made.folded(low).params).items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, exact[path].astype("bfloat16"), err_msg=path)


def test_lora_of_a_lora_is_that_lora(lm):
    made = fitted("lora", lm)
    found = to_lora(made, lm, 3)
    assert found.error < 1e-6 and not found.left_out
    np.testing.assert_allclose(
        found.adaptation.on(lm).logits(IDS), made.on(lm).logits(IDS), rtol=1e-4, atol=1e-3
    )
    assert to_lora(made, lm, 2).error > 0.01


@pytest.mark.parametrize("name", ["vera", "sparse_mask", "full"])
def test_the_error_is_what_the_approximation_misses(name, lm):
    made = fitted(name, lm)
    found, base = to_lora(made, lm, 4), tree.flatten(lm.params)
    wanted, near = (tree.flatten(a.folded(lm).params) for a in (made, found.adaptation))
    missed = sum(np.sum(np.square(np.float64(wanted[p]) - near[p])) for p in base)
    whole = sum(np.sum(np.square(np.float64(wanted[p]) - base[p])) for p in base)
    np.testing.assert_allclose(found.error, np.sqrt(missed / whole), rtol=1e-3)
    assert 0.05 < found.error < 1.0
    moved = {p for p in base if not np.array_equal(wanted[p], base[p])}
    assert set(found.left_out) == {p for p in moved if not p.endswith("/kernel")}
    errors = [to_lora(made, lm, rank).error for rank in (1, 8, 64)]
    assert errors[0] > found.error > errors[1] > errors[2]
    if name != "full":
        assert errors[2] < 1e-6  # 48 is the smaller side of every kernel


@pytest.mark.parametrize("shape", [(7, 12), (12, 7)])
def test_factors_are_the_best_of_their_rank(shape):
    delta = np.random.default_rng(0).normal(size=shape)
    a, b = factors(delta, 3)
    singular = np.linalg.svd(delta, compute_uv=False)
    assert a.shape[1] == b.shape[0] == 3
    np.testing.assert_allclose(np.linalg.norm(delta - a @ b), np.linalg.norm(singular[3:]))


def test_methods_that_are_no_lora(lm):
    with pytest.raises(UserError, match="rank=0 is below 1"):
        to_lora(fitted("lora", lm), lm, 0)
    with pytest.raises(UserError, match="changes no linear layer"):
        to_lora(fitted("norms", lm), lm, 2)
    with pytest.raises(UserError, match="does not fold"):
        to_lora(fitted("prompt_tuning", lm), lm, 2)
