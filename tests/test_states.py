"""Frozen states computed once: exact, found again by what they depend on, within their limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite import tree
from lmlite.adapt import METHODS, attach
from lmlite.data.item import choice_item
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, stream
from lmlite.states import StateStore


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(scale=3.0)


def items(n=6, seed=0):
    draw = np.random.default_rng(seed)
    queries = (draw.integers(0, 256, draw.integers(3, 30)) for _ in range(n))
    return [choice_item(list(query), [[1], [2, 3]]) for query in queries]


SIZE = sum(len(item.ids) for item in items()) * 48 * 4  # bytes of the states of items()


def ask(store, lm, stop=2, chosen=None):
    """(states, whether they were computed for this call)."""
    meter = Meter()
    found = store.states(lm, lm.params, chosen or items(), stop, meter)
    return found, meter.flops > 0


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_states_are_those_of_the_trunk(lm, where, tmp_path):
    store = StateStore(tmp_path, memory_bytes=SIZE if where == "memory" else 0)
    found, computed = ask(store, lm)
    assert computed and bool(list(tmp_path.iterdir())) == (where == "disk")
    at = 0
    for item in items():
        ids, n = item.ids[None], len(item.ids)
        tokens = Tokens(item.position[None], np.ones_like(ids), item.branch[None])
        x = lm.network.trunk(lm.params, lm.network.bottom(lm.params, ids, tokens), tokens, stop=2)
        np.testing.assert_allclose(found[at : at + n], x[0], atol=1e-5)
        at += n
    again, computed = ask(store, lm)
    assert not computed and np.array_equal(found, again)


def test_what_they_depend_on(lm, tmp_path):
    store = StateStore(tmp_path)
    ask(store, lm)
    copy = dataclasses.replace(lm, params=jax.tree.map(jnp.copy, lm.params))
    assert not ask(store, copy)[1]  # equal weights, another array
    above = tree.merge(lm.params, {"layers_3": {"attn": {"q": {"kernel": jnp.zeros((48, 48))}}}})
    assert not ask(store, dataclasses.replace(lm, params=above))[1]
    below = tree.merge(lm.params, {"layers_1": {"attn": {"q": {"kernel": jnp.zeros((48, 48))}}}})
    assert ask(store, dataclasses.replace(lm, params=below))[1]
    low = dataclasses.replace(lm, module=lm.module.clone(dtype="bfloat16"))
    assert ask(store, low)[1]
    assert ask(store, lm, stop=3)[1] and ask(store, lm, chosen=items(seed=1))[1]
    assert not ask(store, lm)[1]


def test_seeds_and_arms_share_them_and_trained_leaves_do_not_count(lm):
    store, used = StateStore(), []
    for method, seed in (("last_layers", 0), ("last_layers", 1), ("lora", 0)):
        hyper = dict(targets=r"layers_[23]/attn/q") if method == "lora" else dict(layers=2)
        adapted, labels = attach(METHODS[method](**hyper), lm, stream(seed, "init"))
        meter = Meter()
        store.states(adapted, tree.split(adapted.params, labels)[1], items(), 2, meter)
        used.append(meter.flops > 0)
    assert used == [True, False, False]


def test_limits(lm, tmp_path):
    assert ask(StateStore(memory_bytes=SIZE - 1), lm)[0] is None
    assert ask(StateStore(tmp_path / "a", SIZE - 1, SIZE - 1), lm)[0] is None
    assert ask(StateStore(), lm, stop=0)[0] is None
    memory = StateStore(memory_bytes=2 * SIZE)
    assert [ask(memory, lm, stop)[1] for stop in (1, 2, 3, 3, 2, 1)] == [1, 1, 1, 0, 0, 1]
    disk = StateStore(tmp_path / "b", 0, 2 * SIZE + 1000)
    assert [ask(disk, lm, stop)[1] for stop in (1, 2, 3, 3, 2, 1)] == [1, 1, 1, 0, 0, 1]
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_another_process_finds_the_file(lm, tmp_path):
    first, _ = ask(StateStore(tmp_path, 0), lm)
    again, computed = ask(StateStore(tmp_path, 0), tiny_lm(scale=3.0))
    assert not computed and np.array_equal(first, again)
