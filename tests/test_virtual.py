"""Learned tokens where tokens see each other: in encoders, and in encoder-decoders.

Decoders are in `test_methods.py`, equality with PEFT in `test_peft.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import byte_tokenizer

from lmlite import tree
from lmlite.adapt import METHODS, Adaptation, attach, attach_headed
from lmlite.arms.items import scored_items, training_items
from lmlite.data.rows import row_length
from lmlite.decode import generate
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded
from lmlite.icl.score import score
from lmlite.models.build import build
from lmlite.models.config import EncDecConfig, EncoderConfig
from lmlite.models.lm import LM
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter
from lmlite.step import trained_network
from lmlite.train import Settings, fit

SIZES = dict(
    vocab_size=256, width=32, layers=2, heads=4, kv_heads=4, head_size=8, hidden=48,
    max_positions=64,
)  # fmt: skip
PAIR = dict(SIZES, encoder_layers=2, encoder_heads=4, encoder_hidden=48, start_id=7)
CONFIGS = {
    "bert": EncoderConfig(**SIZES, types=2, masked_head=True),
    "t5": EncDecConfig(**PAIR, position="relative"),
    "bart": EncDecConfig(**PAIR, position="learned", embed_scale=4.0, norm="layer"),
}
METHOD = {
    "prompt": METHODS["prompt_tuning"](length=4),
    "prefix": METHODS["prefix_tuning"](length=4),
    "prefix-mlp": METHODS["encoded_prefix"](length=4, hidden=6),
    "p-tuning": METHODS["p_tuning"](length=4, hidden=6),
    "p-tuning-lstm": METHODS["p_tuning"](length=4, hidden=6, encoder="lstm"),
    "lora-and-prompt": METHODS["joined"](
        (METHODS["lora"](), METHODS["prompt_tuning"](length=4))
    ),
}  # fmt: skip
DRAW = np.random.default_rng(0)
TEXTS = [DRAW.integers(1, 256, n) for n in (9, 4, 7)]
ANSWERS = [[5, 9], [30, 2, 8]]
OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup=0.0, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def models():
    """models(name): a random model, large enough weights that nothing is near uniform."""
    made = {}

    def load(name):
        if name not in made:
            module, ids = build(CONFIGS[name]), jnp.zeros((1, 4), jnp.int32)
            params = module.init(jax.random.key(0), ids, Tokens.from_mask(ids == 0))["params"]
            params = jax.tree.map(lambda x: x * 5 if x.ndim == 2 else x, params)
            made[name] = LM(module, params, CONFIGS[name], byte_tokenizer(), "tiny")
        return made[name]

    return load


def moved(adapted, labels):
    """Every trainable leaf away from where it started."""
    train, frozen = tree.split(adapted.params, labels)
    draw = np.random.default_rng(1)
    train = jax.tree.map(lambda x: x + jnp.asarray(draw.normal(0, 0.5, x.shape), x.dtype), train)
    return dataclasses.replace(adapted, params=tree.merge(frozen, train))


def adapted(name, lm):
    return moved(*attach(METHOD[name], lm, jax.random.key(1)))


def outputs(lm, ids, mask=None):
    """Logits: an encoder's at every token, an encoder-decoder's of fixed targets."""
    if not lm.config.cross:
        return lm.logits(ids, mask)
    return lm.logits(ids, mask, [[7, 3, 1, 4, 1]] * len(ids))


STEPS = [("bert", name) for name in METHOD if name != "p-tuning"] + [("t5", "prefix")]


@pytest.mark.parametrize(("model", "name"), STEPS)
def test_one_step_moves_every_labelled_leaf_and_no_other(model, name, models):
    lm = models(model)
    encoded = [Encoded([*map(int, ids)], ANSWERS) for ids in TEXTS]
    join = attach if lm.config.cross else attach_headed
    start, labels = join(METHOD[name], lm, jax.random.key(1), 2)
    # Whatever multiplies a zero, as the head here, has no gradient before the zero has moved.
    start = moved(
        start, {path: label if "probe" in path else tree.FROZEN for path, label in labels.items()}
    )
    items = training_items(start, encoded, [0, 1, 1])
    before = tree.flatten(start.params)
    found = fit(start, labels, items, [], [], Settings(1, 8, 0, OPTIM), 0, Meter())
    for path, leaf in tree.flatten(found.params).items():
        waits = path.endswith("lora_a")
        changed = not np.array_equal(before[path], leaf)
        assert changed == (labels[path] != tree.FROZEN and not waits), path


@pytest.mark.parametrize("model", CONFIGS)
def test_a_prompt_of_real_tokens_is_that_text_in_front(model, models):
    """The embeddings of a text's tokens compute what the text does, wherever it is put."""
    lm, text = models(model), "hello"
    method = METHODS["prompt_tuning"](length=len(text), start="text", text=text)
    prompted, _ = attach(method, lm, jax.random.key(0))
    ids = np.asarray([TEXTS[0]])
    whole = np.concatenate([[lm.text.encode(text)], ids], axis=1)
    expected = outputs(lm, whole)
    found = outputs(prompted, ids)
    np.testing.assert_allclose(found, expected[:, -found.shape[1] :], atol=1e-4, rtol=1e-4)
    hidden = lm.hidden(whole)[:, len(text) :]
    np.testing.assert_allclose(prompted.hidden(ids), hidden, atol=1e-4, rtol=1e-4)
    assert np.abs(found - outputs(lm, ids)[:, -found.shape[1] :]).max() > 0.1


@pytest.mark.parametrize(
    ("model", "name"), [("bert", "prompt"), ("t5", "prompt"), ("t5", "prefix")]
)
def test_padding_on_either_side_changes_nothing(model, name, models):
    lm = adapted(name, models(model))
    row, n = TEXTS[1], len(TEXTS[1])
    bare = outputs(lm, [row])
    for before, after in ((3, 0), (0, 3)):
        ids, mask = np.pad(row, (before, after)), np.pad(np.ones(n, bool), (before, after))
        found = outputs(lm, [ids], [mask])
        found = found if lm.config.cross else found[:, before : before + n]
        np.testing.assert_allclose(found, bare, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("model", "name"), [("t5", "prefix"), ("bart", "prompt"), ("bart", "prefix")]
)
def test_packed_pairs_score_as_each_one_alone(model, name, models):
    lm = adapted(name, models(model))
    encoded = [Encoded([*map(int, ids)], ANSWERS) for ids in TEXTS]
    items = scored_items(lm, encoded)
    context = lm.config.max_positions
    scores = score(lm.network, lm.params, items, context, Meter())
    blocks = score(trained_network(lm.network, "block"), lm.params, items, context, Meter())
    targets = np.asarray([[7, *answer[:-1], 0][:3] for answer in ANSWERS])
    for one, found, again in zip(encoded, scores, blocks, strict=True):
        source = np.asarray([one.context] * 2)
        logp = np.asarray(jax.nn.log_softmax(lm.logits(source, target_ids=targets)))
        expected = [logp[c, range(len(a)), a].sum() for c, a in enumerate(ANSWERS)]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        np.testing.assert_allclose(again, expected, atol=1e-3)


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_head_reads_the_mean_of_the_texts_own_states(name, models):
    """In packed rows, with learned tokens that are in no mean."""
    lm = moved(*attach_headed(METHOD[name], models("bert"), jax.random.key(1), 3))
    items = scored_items(lm, [Encoded([*map(int, ids)], [[]] * 3) for ids in TEXTS])
    scores = score(lm.network, lm.params, items, lm.config.max_positions, Meter())
    probe = lm.params["probe"]
    for ids, found in zip(TEXTS, scores, strict=True):
        states = np.asarray(lm.hidden([ids]))[0]
        assert len(states) == len(ids)
        logits = states.mean(0) @ probe["kernel"] + probe["bias"]
        np.testing.assert_allclose(found, jax.nn.log_softmax(logits), atol=1e-4)


def test_embeddings_are_pooled_without_learned_tokens(models):
    lm = adapted("prompt", models("bert"))
    found = lm.embed(["some text"], normalize=False)[0]
    states = np.asarray(lm.hidden([lm.text.encode("some text")]))[0]
    np.testing.assert_allclose(found, states.mean(0), atol=1e-5)


@pytest.mark.parametrize(("model", "name"), [("t5", "prefix"), ("bart", "prompt")])
def test_generation_equals_repeated_full_forwards(model, name, models):
    lm = adapted(name, models(model))
    prompts = ["a", "The cat sat on it"]
    together = generate(lm, prompts, max_new_tokens=4)
    source, mask = np.zeros((2, 2, 17), int)
    for row, prompt in enumerate(prompts):
        source[row, : len(prompt)], mask[row, : len(prompt)] = lm.text.encode(prompt), 1
    targets = np.full((2, 5), 7)
    for i in range(4):
        targets[:, i + 1] = lm.logits(source, mask, targets)[:, i].argmax(-1)
    assert [one.ids for one in together] == targets[:, 1:].tolist()
    assert together != generate(models(model), prompts, max_new_tokens=4)


@pytest.mark.parametrize("model", ["bert", "t5"])
def test_learned_tokens_take_of_the_room(model, models):
    lm = models(model)
    prompted, prefixed = adapted("prompt", lm), adapted("prefix", lm)
    for tuned in (prompted, prefixed):
        assert tuned.room == lm.config.max_positions - 4
        assert np.isfinite(outputs(tuned, np.ones((1, 60), int))).all()
        with pytest.raises(UserError, match="has 61 positions, the model's context is 60"):
            tuned.hidden(np.ones((1, 61), int))
    if lm.config.cross:  # learned tokens of the source count as tokens of the items
        fits, longer = scored_items(prompted, [Encoded([1] * n, [[2]]) for n in (60, 61)])
        assert row_length([fits], prompted.config.max_positions) == 64
        with pytest.raises(UserError, match="longer than the model's context"):
            row_length([longer], prompted.config.max_positions)
    with pytest.raises(UserError, match="length=64 virtual tokens do not fit"):
        attach(METHODS["prompt_tuning"](length=64), lm, jax.random.key(0))
    with pytest.raises(UserError, match="virtual tokens do not fit"):
        attach(METHOD["prompt"], prompted, jax.random.key(0))


@pytest.mark.parametrize(("model", "name"), [("bert", "lora-and-prompt"), ("t5", "prompt")])
def test_what_was_trained_is_put_on_the_base_again(model, name, models):
    lm = models(model)
    tuned = adapted(name, lm)
    found = Adaptation.of(METHOD[name], lm, tuned.params)
    assert all("prompt" in path or "lora" in path for path in tree.flatten(found.params))
    ids = [TEXTS[0]]
    np.testing.assert_array_equal(outputs(found.on(lm), ids), outputs(tuned, ids))
    lora, _ = attach(METHODS["lora"](), lm, jax.random.key(2))
    stacked = found.on(lora)  # adapters beside the kernels, which start at nothing
    np.testing.assert_allclose(outputs(stacked, ids), outputs(tuned, ids), atol=1e-4)


@pytest.mark.parametrize("model", CONFIGS)
def test_the_token_table_stays_what_it_was_for_real_ids(model, models):
    """Learned ids begin where the vocabulary ends: the last real id is a token of it."""
    lm = models(model)
    tuned = adapted("prompt", lm)
    ids = jnp.asarray([[0, 255]])
    tokens = Tokens.from_mask(ids >= 0)
    found = tuned.network.bottom(tuned.params, ids, tokens)
    np.testing.assert_array_equal(found, lm.network.bottom(lm.params, ids, tokens))
