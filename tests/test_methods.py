"""Tuning methods: exact at the start, only labelled leaves move, folded = not, PEFT's logits."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from lmlite import arms, tree
from lmlite.adapt import METHODS, attach
from lmlite.arms.fisher import squared_gradients
from lmlite.data.item import choice_item, class_item
from lmlite.errors import UserError
from lmlite.icl.score import prefill, score
from lmlite.models.config import DecoderConfig
from lmlite.models.decoder import Decoder, empty_cache
from lmlite.models.lm import LM
from lmlite.models.tokens import Tokens
from lmlite.optim import Optimizer
from lmlite.runtime import Meter
from lmlite.train import Settings, fit

LLAMA = DecoderConfig(
    vocab_size=40, width=16, layers=2, heads=4, kv_heads=2, head_size=4, hidden=24,
    max_positions=64, norm_eps=1e-6, qkv_bias=True, out_bias=True,
)  # fmt: skip
ONE = dataclasses.replace(LLAMA, layers=1)
GPT2 = dataclasses.replace(
    LLAMA, kv_heads=4, norm="layer", gated=False, activation="gelu_tanh", position="learned",
    mlp_bias=True,
)  # fmt: skip
QV_DOWN = r"layers_\d+/(attn/(q|v)|mlp/down)"
# Hyperparameters that fit the tiny model, and methods in more than one form.
HYPER = {
    "last_layers": dict(layers=1),
    "lora": dict(targets=QV_DOWN, rank=3, ranks=((".*/q", 2),), alphas=((".*/down", 5.0),)),
    "dora": dict(targets=QV_DOWN, rank=3),
    "pissa": dict(targets=QV_DOWN, rank=3),
    "vera": dict(targets=QV_DOWN, rank=5),
    "adapter": dict(width=3),
    "parallel_adapter": dict(width=3),
    "prompt_tuning": dict(length=3),
    "prefix_tuning": dict(length=3),
    "encoded_prefix": dict(length=3, hidden=6),
    "p_tuning": dict(length=3, hidden=6, encoder="lstm"),
    "sparse_mask": dict(fraction=0.1),
    "fish_mask": dict(fraction=0.1),
    "diff_pruning": dict(targets=QV_DOWN, fraction=1.0),
    "joined": dict(parts=(METHODS["lora"](QV_DOWN, rank=3), METHODS["ia3"]())),
}
# The names of the leaves that train, where the method adds them.
LORA = {"lora_a", "lora_b"}
ADDED = {
    "linear_probe": {"kernel", "bias"},
    "diff_pruning": {"diff", "diff_gate"},
    "joined": {*LORA, "ia3_in", "ia3_out"},
    "lora": LORA,
    "dora": {*LORA, "magnitude"},
    "pissa": LORA,
    "vera": {"vera_d", "vera_b"},
    "ia3": {"ia3_in", "ia3_out"},
    "adapter": {f"adapter_{part}" for part in ("down", "down_bias", "up", "up_bias")},
    "parallel_adapter": {f"adapter_{part}" for part in ("down", "down_bias", "up", "up_bias")},
    "prompt_tuning": {"prompt"},
    "prefix_tuning": {"prefix_key", "prefix_value"},
    "encoded_prefix": {"embedding", "kernel_0", "bias_0", "kernel_1", "bias_1"},
    "p_tuning": {"embedding", "kernel", "bias"},
    "sparse_mask": {"mask_values"},
    "fish_mask": {"mask_values"},
}
STARTS_ELSEWHERE = {"linear_probe", "prompt_tuning", "prefix_tuning", "encoded_prefix", "p_tuning"}
IDS = np.random.default_rng(1).integers(0, 40, (2, 9))
OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup=0.0, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip


class Words:
    """A tokenizer: one id a letter."""

    def encode_batch(self, texts):
        return [[ord(letter) % 40 for letter in text] for text in texts]


def model(config: DecoderConfig = LLAMA, dtype: str = "float32") -> LM:
    """A random model whose biases and norms are random too."""
    module = Decoder(config, dtype)
    tokens = Tokens.from_mask(jnp.ones((1, 4), bool))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32), tokens)
    leaves, structure = jax.tree.flatten(shapes["params"])
    rng = np.random.default_rng(0)
    drawn = [
        jnp.asarray(rng.normal(float(x.ndim == 1), 0.3, x.shape), jnp.dtype(dtype)) for x in leaves
    ]
    return LM(module, jax.tree.unflatten(structure, drawn), config, Words())


def method(name: str, **hyper):
    return METHODS[name](**{**HYPER.get(name, {}), **hyper})


def attached(name: str, lm: LM, **hyper):
    flat = tree.flatten(lm.params)
    return attach(
        method(name, **hyper), lm, jax.random.key(3), classes=3,
        squares=lambda paths: {path: jnp.square(flat[path]) for path in paths},
    )  # fmt: skip


def one_step(adapted: LM, labels):
    """The result of one step over all examples."""
    rng = np.random.default_rng(2)
    queries = [rng.integers(0, 40, n) for n in (5, 9, 12)]
    if adapted.head:
        items = [class_item(q, [i]) for i, q in enumerate(queries)]
    else:
        items = [choice_item(q, [[7, 8]]) for q in queries]
    result = fit(adapted, labels, items, [], [], Settings(1, 8, 0, OPTIM), 0, Meter())
    assert result.steps == 1
    return result


def perturbed(params, labels):
    """Every trainable leaf moved, so that nothing is at its neutral starting value."""
    train, frozen = tree.split(params, labels)
    rng = np.random.default_rng(5)
    moved = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), train)
    return tree.merge(frozen, moved)


@pytest.mark.parametrize("name", METHODS)
def test_one_step_moves_every_labelled_leaf_and_no_other(name):
    adapted, labels = attached(name, model(ONE))
    before = tree.flatten(adapted.params)
    after = tree.flatten(one_step(adapted, labels).params)
    # Whatever multiplies a zero has no gradient before the zero has moved.
    waits = {"lora_a", "vera_d", "adapter_down", "adapter_down_bias"}
    if name == "pissa":
        waits = set()
    for path, label in labels.items():
        moved = not np.array_equal(before[path], after[path])
        expected = label != tree.FROZEN and path.split("/")[-1] not in waits
        if path.endswith("attn/k/bias") and expected:
            continue  # softmax does not see what every key has in common: its gradient is rounding
        assert moved == expected, path
        assert np.isfinite(after[path]).all(), path


@pytest.mark.parametrize("name", METHODS)
def test_what_trains(name):
    lm = model(ONE)
    _, labels = attached(name, lm)
    base = set(tree.flatten(lm.params))
    train = {path for path, label in labels.items() if label != tree.FROZEN}
    own = {
        "full": base, "last_layers": base - {"embed/embedding", "norm/scale"}, "layerwise": base,
        "gradual_unfreezing": base,
        "layers": base - {"embed/embedding", "norm/scale"}, "l2_sp": base,
        "norms": {path for path in base if path.endswith("scale")},
        "bias": {path for path in base if path.endswith("bias")},
    }.get(name, set())  # fmt: skip
    assert train & base == own
    assert {path.split("/")[-1] for path in train - base} == ADDED.get(name, set())


@pytest.mark.parametrize("name", sorted(set(METHODS) - STARTS_ELSEWHERE))
def test_starts_at_the_base(name):
    lm = model(ONE)
    adapted, _ = attached(name, lm)
    if name in ("pissa", "dora"):  # equal in exact arithmetic
        np.testing.assert_allclose(adapted.logits(IDS), lm.logits(IDS), atol=2e-5)
    else:
        np.testing.assert_array_equal(adapted.logits(IDS), lm.logits(IDS))


@pytest.mark.parametrize("name", sorted(n for n, m in METHODS.items() if m.foldable))
def test_folded_equals_adapted(name):
    lm = model(dataclasses.replace(GPT2, layers=1))  # every linear layer has a bias
    adapted, labels = attached(name, lm)
    params = perturbed(adapted.params, labels)
    folded = method(name).merge(params)
    assert {p: x.shape for p, x in tree.flatten(folded).items()} == {
        p: x.shape for p, x in tree.flatten(lm.params).items()
    }
    expected = dataclasses.replace(adapted, params=params).logits(IDS)
    assert np.abs(expected - lm.logits(IDS)).max() > 0.1
    found = dataclasses.replace(lm, params=folded).logits(IDS)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_optimizer_holds_state_for_trainable_leaves_alone(name):
    adapted, labels = attached(name, model())
    train, _ = tree.split(adapted.params, labels)
    paths = tuple((path, labels[path]) for path in tree.flatten(train))
    state = Optimizer(steps=1, labels=paths, learning_rate=1e-3).build().init(train)
    moments = [x.shape for x in jax.tree.leaves(state) if x.ndim]
    shapes = [x.shape for x in jax.tree.leaves(train)]
    assert sorted(moments) == sorted(2 * [s for s in shapes if s])


@pytest.mark.parametrize("name", ["dora", "ia3", "prompt_tuning", "sparse_mask"])
def test_bfloat16_model_stays_close_to_float32(name):
    lm, low = model(ONE), model(ONE, dtype="bfloat16")
    exact, labels = attached(name, lm)
    rounded, _ = attached(name, low)
    base, moved = tree.flatten(lm.params), tree.flatten(perturbed(exact.params, labels))
    added = tree.unflatten({path: leaf for path, leaf in moved.items() if path not in base})
    logits, near = (
        dataclasses.replace(m, params=tree.merge(m.params, added)).logits(IDS)
        for m in (exact, rounded)
    )
    assert np.abs(near - logits).mean() < 0.01 * np.std(logits)


REFERENCES = np.load(Path(__file__).parent / "references" / "methods.npz")
PEFT = {
    "lora": ("lora", dict(rank=4, alpha=6.0, ranks=((".*/q", 2),), alphas=((".*/v", 5.0),))),
    "rslora": ("lora", dict(rank=4, alpha=6.0, rank_stabilised=True, ranks=(), alphas=())),
    "dora": ("dora", dict(rank=4, alpha=6.0)),
    "vera": ("vera", dict(rank=5, targets=r"layers_\d+/attn/(q|v)")),
    "ia3": ("ia3", {}),
    "prompt_tuning": ("prompt_tuning", {}),
    "prefix_tuning": ("prefix_tuning", {}),
    "encoded_prefix": ("encoded_prefix", {}),
    "p_tuning_mlp": ("p_tuning", dict(encoder="mlp")),
    "p_tuning_lstm": ("p_tuning", dict(encoder="lstm")),
}


def stored(name: str) -> dict:
    start = name + "/"
    return {k.removeprefix(start): REFERENCES[k] for k in REFERENCES if k.startswith(start)}


@pytest.mark.parametrize("name", PEFT)
def test_equals_peft(name):
    base, own = stored("base"), stored(name)
    base_logits, expected = base.pop("logits"), own.pop("logits")
    slopes = {path: own.pop(f"gradient/{path}") for path in [*own] if f"gradient/{path}" in own}
    lm = LM(Decoder(LLAMA), jax.tree.map(jnp.asarray, tree.unflatten(base)), LLAMA)
    ids = REFERENCES["ids"]
    np.testing.assert_allclose(lm.logits(ids), base_logits, atol=1e-5)
    kind, hyper = PEFT[name]
    if kind in ("lora", "dora"):
        hyper = {**hyper, "targets": QV_DOWN}
    if "start" in {f.name for f in dataclasses.fields(METHODS[kind])}:
        hyper = {**hyper, "start": "random" if kind == "prompt_tuning" else "vocabulary"}
    adapted, _ = attached(kind, lm, **hyper)
    shapes = {path: leaf.shape for path, leaf in tree.flatten(adapted.params).items()}
    assert shapes == {path: leaf.shape for path, leaf in {**base, **own}.items()}
    params = tree.merge(adapted.params, tree.unflatten(own))
    logits = dataclasses.replace(adapted, params=params).logits(ids)
    assert np.abs(expected - base_logits).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)

    def loss(own):
        params = tree.merge(adapted.params, tree.unflatten(own))
        logits = dataclasses.replace(adapted, params=params).logits(ids)[:, :-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean()

    assert bool(slopes) == (name in ("lora", "rslora", "dora", "ia3"))
    found = jax.grad(loss)({path: jnp.asarray(own[path]) for path in slopes}) if slopes else {}
    for path, slope in slopes.items():
        np.testing.assert_allclose(found[path], slope, atol=1e-4, err_msg=path)


def test_adapters_follow_their_formulas():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 16)).astype(np.float32)
    z = rng.normal(size=(5, 16)).astype(np.float32)
    for name, act, source, scale in (
        ("adapter", lambda h: np.maximum(h, 0), z, 1.0),
        ("parallel_adapter", lambda h: np.maximum(h, 0), x, 4.0),
    ):
        site = Recorder(rng)
        y = method(name, activation="relu")._wrap(site, lambda x: z, x)
        p = site.params
        low = act(source @ p["adapter_down"] + p["adapter_down_bias"])
        expected = z + scale * (low @ p["adapter_up"] + p["adapter_up_bias"])
        np.testing.assert_allclose(y, expected, atol=1e-5)


class Recorder:
    """A site whose parameters are random."""

    dtype = "float32"

    def __init__(self, rng):
        self.rng, self.params = rng, {}

    def param(self, name, init, shape):
        self.params[name] = self.rng.normal(size=shape).astype(np.float32)
        return self.params[name]


def test_dora_norm_has_no_gradient():
    """Section 4.3: dL/dV is that of y = (m / |V|) V x with |V| held constant."""
    lm = model()
    adapted, labels = attached("dora", lm, targets="layers_1/mlp/down", rank=2)
    params = perturbed(adapted.params, labels)
    own = params["layers_1"]["mlp"]["down"]
    scale = 16.0 / 2

    def adapted_loss(b):
        changed = tree.merge(params, {"layers_1": {"mlp": {"down": {"lora_b": b}}}})
        return jnp.sum(dataclasses.replace(adapted, params=changed).logits(IDS) ** 2)

    lengths = np.linalg.norm(own["kernel"] + scale * own["lora_a"] @ own["lora_b"], axis=0)

    def plain_loss(b):
        kernel = (own["kernel"] + scale * own["lora_a"] @ b) * own["magnitude"] / lengths
        changed = tree.merge(lm.params, {"layers_1": {"mlp": {"down": {"kernel": kernel}}}})
        return jnp.sum(dataclasses.replace(lm, params=changed).logits(IDS) ** 2)

    expected = jax.grad(plain_loss)(own["lora_b"])
    found = jax.grad(adapted_loss)(own["lora_b"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2 * np.abs(expected).max())


def test_pissa_takes_the_largest_singular_triples():
    lm = model()
    adapted, _ = attached("pissa", lm, targets="layers_0/attn/q", rank=3)
    own, base = (m.params["layers_0"]["attn"]["q"] for m in (adapted, lm))

    def singular(kernel):
        return np.linalg.svd(kernel, compute_uv=False)

    product = (16.0 / 3) * own["lora_a"] @ own["lora_b"]
    np.testing.assert_allclose(singular(product)[:3], singular(base["kernel"])[:3], atol=1e-4)
    np.testing.assert_allclose(
        singular(own["kernel"])[:-3], singular(base["kernel"])[3:], atol=1e-4
    )
    a = np.linalg.norm(own["lora_a"], axis=0)
    np.testing.assert_allclose(a, np.linalg.norm(own["lora_b"], axis=1), rtol=1e-4)


def test_lora_plus_gives_b_its_own_rate():
    adapted, labels = attached("lora", model())
    train, _ = tree.split(adapted.params, labels)
    paths = tuple((path, labels[path]) for path in tree.flatten(train))
    spec = common.methods()["lora-plus"].to_dict()["optim"]
    fields = {**spec, "schedule": "constant", "warmup": 0.0, "clip_norm": 0.0}
    tx = Optimizer(steps=1, labels=paths, **fields).build()
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, train), tx.init(train), train)
    for path, update in tree.flatten(updates).items():
        ratio = 16.0 if path.endswith("lora_b") else 1.0
        np.testing.assert_allclose(-update, spec["learning_rate"] * ratio, rtol=1e-4)


def kept(params) -> dict[str, np.ndarray]:
    """{module path: chosen places in its kernel}."""
    ending = "/mask_index"
    flat = tree.flatten(params)
    return {p.removesuffix(ending): np.asarray(x) for p, x in flat.items() if p.endswith(ending)}


def test_masks_keep_the_best_weights_of_all_layers_together():
    lm = model()
    targets = r"layers_\d+/mlp/\w+"
    flat = {p: np.abs(x).ravel() for p, x in tree.flatten(lm.params).items() if "mlp/" in p}
    total = sum(x.size for x in flat.values())
    bound = np.sort(np.concatenate(list(flat.values())))[-round(0.1 * total)]
    chosen = kept(attached("sparse_mask", lm, targets=targets, fraction=0.1)[0].params)
    for path, index in chosen.items():
        np.testing.assert_array_equal(index, np.flatnonzero(flat[f"{path}/kernel"] >= bound))
    adapted, _ = attached("sparse_mask", lm, targets=targets, fraction=0.1, choose="random")
    random = kept(adapted.params)
    assert sum(index.size for index in chosen.values()) == round(0.1 * total)
    for path, index in random.items():
        assert index.size == round(0.1 * flat[f"{path}/kernel"].size)
    means = [np.mean(flat[f"{path}/kernel"][index]) for path, index in random.items()]
    assert max(means) < bound  # a random choice is not the large weights


def test_fish_mask_keeps_the_largest_mean_squared_gradients():
    """Against one gradient an example of the plain, unpacked model."""
    lm = model()
    queries, answers = [[3, 1, 4], [6, 5]], [[7], [8, 2]]
    items = [choice_item(q, [a]) for q, a in zip(queries, answers, strict=True)]
    path = "layers_1/mlp/up"

    def answer_logprob(kernel, query, answer):
        params = tree.merge(lm.params, {"layers_1": {"mlp": {"up": {"kernel": kernel}}}})
        ids = jnp.asarray([query + answer])
        tokens = Tokens.from_mask(jnp.ones(ids.shape, bool))
        logits = lm.network.apply(params, "__call__", ids, tokens)[0]
        logp = jax.nn.log_softmax(logits[len(query) - 1 : -1])
        return sum(logp[i, token] for i, token in enumerate(answer))

    kernel = lm.params["layers_1"]["mlp"]["up"]["kernel"]
    grads = [
        jax.jit(jax.grad(lambda k, q=q, a=a: answer_logprob(k, q, a)))(kernel)
        for q, a in zip(queries, answers, strict=True)
    ]
    fisher = np.mean(np.square(grads), axis=0)
    found = squared_gradients(lm, items, Meter(), [f"{path}/kernel"])[f"{path}/kernel"]
    np.testing.assert_allclose(found, fisher, rtol=1e-3, atol=1e-5 * fisher.max())
    adapted, _ = attach(
        METHODS["fish_mask"](targets=path, fraction=0.05), lm, jax.random.key(0),
        squares=lambda paths: squared_gradients(lm, items, Meter(), paths),
    )  # fmt: skip
    best = np.argsort(-fisher.ravel())[: round(0.05 * fisher.size)]
    np.testing.assert_array_equal(kept(adapted.params)[path], np.sort(best))
    with pytest.raises(UserError, match="training examples"):
        attach(METHODS["fish_mask"](), lm, jax.random.key(0))


def test_l2_sp_adds_the_squared_distance_to_the_loss():
    lm = model(ONE)
    full, labels = attached("full", lm)
    away = dataclasses.replace(lm, params=perturbed(full.params, labels))
    adapted, _ = attached("l2_sp", lm)
    params = {**away.params, "start": lm.params}
    pulled = dataclasses.replace(adapted, params=params)
    before, moved = tree.flatten(lm.params), tree.flatten(away.params)
    distance = sum(np.sum(np.square(np.asarray(moved[p]) - before[p])) for p in before)
    found = one_step(pulled, attached("l2_sp", lm)[1]).history[0]["loss"]
    plain = one_step(away, labels).history[0]["loss"]
    np.testing.assert_allclose(found - plain, 0.005 * distance, rtol=1e-4)


def test_layer_labels():
    lm = model()
    _, labels = attached("layers", lm, layers=(1,))
    assert {p for p, label in labels.items() if label == "layer_1"} == {
        p for p in labels if p.startswith("layers_1/")
    }
    assert set(labels.values()) == {"layer_1", tree.FROZEN}
    _, labels = attached("layerwise", lm)
    assert set(labels.values()) == {"bottom", "layer_0", "layer_1", "top"}


def test_dropout_acts_in_training_alone():
    lm = model(ONE)
    tokens = Tokens.from_mask(jnp.ones(IDS.shape, bool))

    @functools.partial(jax.jit, static_argnums=0)
    def states(network, params, rngs=None):
        return network.trunk(params, network.bottom(params, IDS, tokens), tokens, rngs=rngs)

    for name in ("lora", "vera"):
        adapted, labels = attached(name, lm, dropout=0.5)
        params = perturbed(adapted.params, labels)
        expected = states(attached(name, lm, dropout=0.0)[0].network, params)
        np.testing.assert_array_equal(states(adapted.network, params), expected)
        one, two = (states(adapted.network, params, {"dropout": jax.random.key(i)}) for i in (0, 1))
        assert np.abs(one - expected).max() > 1e-3 and np.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_of_a_real_prompt_are_that_prompt(name, config):
    """Started from a text, both methods compute what the text in context computes."""
    lm, text = model(config), "hello"
    adapted, _ = attached(name, lm, start="text", text=text, length=len(text))
    prompt = lm.text.encode_batch([text])[0]
    joint = [[*prompt, *row] for row in IDS]
    np.testing.assert_allclose(adapted.logits(IDS), lm.logits(joint)[:, len(text) :], atol=1e-5)


@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning"])
def test_demonstrations_follow_virtual_tokens(name):
    """A prefix prefilled under the method equals the same tokens at the start of each query."""
    adapted, _ = attached(name, model())
    shown, queries = [3, 1, 4, 1, 5], [[9, 2, 6], [5, 3, 5, 8]]
    choices, meter = [[7], [1, 2]], Meter()
    items = [choice_item(shown + q, choices) for q in queries]
    whole = score(adapted.network, adapted.params, items, 60, meter)
    prefix = prefill(adapted.network, adapted.params, shown, 60, meter)
    items = [choice_item(q, choices, len(shown)) for q in queries]
    np.testing.assert_allclose(
        score(adapted.network, adapted.params, items, 60, meter, prefix), whole, atol=1e-5
    )


@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning"])
def test_decoding_with_a_cache_sees_virtual_tokens(name):
    adapted, _ = attached(name, model(ONE))
    network, params = adapted.network, adapted.params
    tokens = Tokens.from_mask(jnp.ones(IDS.shape, bool))
    cache = empty_cache(ONE, *IDS.shape, "float32")
    first, rest = (jax.tree.map(lambda t, s=s: t[:, s], tokens) for s in (slice(5), slice(5, None)))
    _, cache = network.decode(params, IDS[:, :5], first, cache)
    x, _ = network.decode(params, IDS[:, 5:], rest, cache)
    expected = adapted.logits(IDS)[:, 5:]
    np.testing.assert_allclose(network.readout(params, x), expected, atol=1e-5)


def test_prompt_runs_once_however_many_rows():
    adapted, _ = attached("prompt_tuning", model(), length=32)
    network = adapted.network

    def flops(network, rows):
        ids = jnp.zeros((rows, 4), jnp.int32)
        tokens = Tokens.from_mask(jnp.ones(ids.shape, bool))

        def run(params):
            return network.trunk(params, network.bottom(params, ids, tokens), tokens)

        return jax.jit(run).lower(adapted.params).cost_analysis()["flops"]

    bare = dataclasses.replace(network, virtual=None)
    one, many = (flops(network, r) - flops(bare, r) for r in (1, 9))
    prompt = flops(bare, 8)  # as many tokens as the prompt
    assert one < 2 * prompt and many - one < 0.5 * 8 * prompt


def test_prompt_starts():
    lm = model()
    table = np.asarray(lm.params["embed"]["embedding"])

    def prompt(start):
        adapted, _ = attached("prompt_tuning", lm, start=start, text="abc", length=7)
        return np.asarray(adapted.params["embed"]["prompt"])

    prompts = {start: prompt(start) for start in ("random", "vocabulary", "text")}
    np.testing.assert_array_equal(prompts["text"], table[[ord(c) % 40 for c in "abcabca"]])
    assert all(any(np.array_equal(row, r) for r in table) for row in prompts["vocabulary"])
    assert 0.5 < prompts["random"].std() / table.std() < 2.0


@pytest.mark.parametrize(
    ("name", "hyper", "message"),
    [
        ("lora", dict(targets="nothing"), "match no module"),
        ("lora", dict(targets=r"layers_0/attn"), "which is Attention"),
        ("lora", dict(targets=r"layers_0/\w+_norm"), "which is Norm"),
        ("dora", dict(rank=0), "rank=0"),
        ("vera", dict(rank=0), "rank=0"),
        ("lora", dict(ranks=((".*/q", 0),)), "rank=0"),
        ("lora", dict(ranks=((".*/typo", 4),)), "typo"),
        ("ia3", dict(outputs="nothing"), "nothing"),
        ("adapter", dict(width=0), "width=0"),
        ("adapter", dict(activation="tanhh"), "tanhh"),
        ("prompt_tuning", dict(length=0), "length=0"),
        ("prefix_tuning", dict(length=64), "length=64"),
        ("prompt_tuning", dict(start="words"), "words"),
        ("prompt_tuning", dict(start="text", text=""), "at least one token"),
        ("p_tuning", dict(encoder="gru"), "gru"),
        ("sparse_mask", dict(fraction=0.0), "fraction=0.0"),
        ("sparse_mask", dict(choose="best"), "best"),
        ("fish_mask", dict(targets="nothing"), "nothing"),
        ("l2_sp", dict(strength=-1.0), "strength=-1.0"),
        ("layers", dict(layers=(7,)), "layers_7"),
        ("prompt_tuning", dict(length=41), "length=41 is above the 40 tokens of the vocabulary"),
        ("encoded_prefix", dict(hidden=0), "hidden=0 must be a whole number of at least 1"),
        ("lora", dict(alpha=0.0), "alpha=0.0 must be a number of at least"),
        ("pissa", dict(alpha=-1.0), "alpha=-1.0 must be"),
        ("lora", dict(alphas=((".*/q", 0.0),)), "alphas: .*/q=0.0 must be"),
    ],
)
def test_errors_name_the_field(name, hyper, message):
    with pytest.raises(UserError, match=message) as error:
        attached(name, model(), **hyper)
    assert "\n" not in str(error.value)


def test_pairs_may_be_lists():
    """As a command line writes them."""
    given = METHODS["lora"](ranks=(["layers_0/attn/q", 4],))
    assert given.form() and given.size("layers_0/attn/q")[0] == 4 and hash(given)


@pytest.mark.parametrize("name", common.methods())
def test_every_arm_builds(name):
    assert arms.build(common.methods()[name].to_dict()).family == "tuning"


def test_every_method_has_an_arm():
    assert {spec.method for spec in common.methods().values()} == set(METHODS)


@pytest.mark.parametrize("name, kept", [
    ("sparse_mask", None), ("encoded_prefix", 2 * 2 * 3 * 2 * 4), ("p_tuning", 3 * 16), ("lora", 0),
])  # fmt: skip
def test_what_is_kept_is_what_answers_need(name, kept):
    """A mask's places too; of an encoded prompt what the encoder wrote."""
    lm = model(LLAMA)
    method = METHODS[name](**HYPER[name])
    adapted, labels = attach(method, lm, jax.random.key(0))
    moved, _ = tree.split(adapted.params, labels)
    found = tree.count(method.kept(lm, adapted.params, moved))
    expected = {None: 2 * tree.count(moved), 0: tree.count(moved)}.get(kept, kept)
    assert found == expected


def test_pissa_has_no_more_ranks_than_singular_values():
    with pytest.raises(UserError, match="rank=9 is above the 8 singular values of layers_0/attn/v"):
        method = METHODS["pissa"](targets=r"layers_\d+/attn/v", rank=9)
        attach(method, model(LLAMA), jax.random.key(0))
