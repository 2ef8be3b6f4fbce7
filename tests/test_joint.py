"""Arms fitted together: each as if alone, the frozen weights read once, padding that stays zero."""


import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite import arms, tree
from lmlite.adapt import METHODS
from lmlite.arms.tuned import Tuned
from lmlite.data.tasks import Example, Task
from lmlite.train import Settings

OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="linear", warmup=0.1, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip
LINEAR = r"layers_\d+/(attn|mlp)/\w+"


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(scale=3.0)


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
    together = fitted(lm, task, data, jobs_of(*pairs))
    for (one, seed), found in zip(pairs, together, strict=True):
        alone = one.fit(lm, task, data, seed, arms.Log())
        assert found.cost.together == len(pairs) and alone.cost.together == 1
        assert found.cost.trainable_params == alone.cost.trainable_params
        mine, its = tree.flatten(found.lm.params), tree.flatten(alone.lm.params)
        assert mine.keys() == its.keys()
        for path, leaf in its.items():
            np.testing.assert_allclose(mine[path], leaf, atol=1e-5, err_msg=path)


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
        ("dora", [dict(rank=2), dict(rank=4, alpha=6.0)]),
        ("pissa", [dict(rank=2), dict(rank=2)]),
        ("adapter", [dict(width=3), dict(width=6)]),
        ("vera", [dict(rank=8), dict(rank=8)]),
        ("prompt_tuning", [dict(length=4), dict(length=4)]),
        ("last_layers", [dict(layers=1), dict(layers=1)]),
        ("linear_probe", [{}, {}]),
    ],
)
def test_other_methods(lm, task, data, method, hyper):
    pairs = [(arm(method, epochs=2, **h), seed) for seed, h in enumerate(hyper)]
    assert pairs[0][0].form() == pairs[1][0].form() is not None
    assert_as_alone(lm, task, data, pairs)
