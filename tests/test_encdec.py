"""Encoder-decoders: what a target sees, cached decoding, packed pairs, arms, files of all ages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from tiny_lm import byte_tokenizer
from tiny_models import assert_same

import lmlite
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.models.stack import empty_cache
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter

CASES = parity.cases()
FAMILIES = ("t5", "t5_v1_1", "bart")
NAMES = [f"{side}coder.embed_tokens.weight" for side in ("en", "de")]


@pytest.fixture(scope="module", params=FAMILIES)
def lm(request, tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("model"), request.param)


def loaded(folder, case, rename=lambda name: name, extra=None, **config):
    """A case's model with other tensor names, tensors beside them, and other keys (None: none)."""
    spec = CASES[case]
    raw = {key: v for key, v in (spec["config"] | config).items() if v is not None}
    tensors = parity.write(folder, raw, spec["shapes"])
    parity.save(folder, {rename(k): v for k, v in tensors.items() if rename(k)} | (extra or {}))
    return lmlite.load(folder)


def whole(shape) -> Tokens:
    return Tokens.from_mask(jnp.ones(shape, bool))


def test_cached_decoding_equals_the_full_pass(lm):
    ids, targets = jnp.asarray(parity.IDS), parity.TARGET_IDS
    expected = lm.logits(ids, target_ids=targets)
    memory = lm.network.remember(lm.params, ids, whole(ids.shape))
    cache = empty_cache(lm.config, 1, 32, "float32")._replace(memory=memory)
    step = jax.jit(lambda ids, tokens, cache: lm.network.apply(
        lm.params, "decode", ids, tokens, cache))  # fmt: skip
    one = jnp.ones((1, 1), jnp.int32)
    for t in range(targets.shape[1]):
        x, cache = step(targets[:, t : t + 1], Tokens(t * one, one, 0 * one), cache)
        logits = lm.network.readout(lm.params, x[:, 0])
        np.testing.assert_allclose(logits, expected[:, t], atol=1e-4, rtol=1e-4)


def test_a_target_sees_the_source_and_the_targets_before_it(lm):
    def at(source, target, t):
        x = lm.network.apply(lm.params, "remember", source, whole((1, 6)))
        return lm.network.trunk(lm.params, target, whole((1, 5)), memory=x)[0, t].sum()

    draw = np.random.default_rng(0)
    source, target = (jnp.asarray(draw.normal(size=(1, n, 32)), jnp.float32) for n in (6, 5))
    by_source, by_target = jax.jit(jax.grad(at, (0, 1)), static_argnums=2)(source, target, 2)
    assert (np.abs(by_source[0]).max(-1) > 0).all()
    assert [*(np.abs(by_target[0]).max(-1) > 0)] == [True, True, True, False, False]


def test_packed_pairs_equal_single_ones(lm):
    draw = np.random.default_rng(0)
    pairs = [[draw.integers(3, 40, n) for n in sizes] for sizes in ((5, 3), (9, 4))]
    packed = []
    for parts in zip(*pairs, strict=True):
        segment = jnp.asarray([[i + 1 for i, x in enumerate(parts) for _ in x]])
        position = jnp.asarray([[p for x in parts for p in range(len(x))]])
        packed += [jnp.asarray([np.concatenate(parts)]), Tokens(position, segment, 0 * segment)]
    found = jax.jit(lm.module.apply)({"params": lm.params}, *packed)[0]
    single = [lm.logits([s], target_ids=[t])[0] for s, t in pairs]
    np.testing.assert_allclose(found, np.concatenate(single), atol=1e-4, rtol=1e-4)


def test_without_a_target_the_first_token_is_predicted(lm):
    tokens = whole(parity.IDS.shape)
    found = jax.jit(lm.module.apply)({"params": lm.params}, parity.IDS, tokens)
    start = lm.logits(parity.IDS, target_ids=[[lm.config.start_id]])
    np.testing.assert_allclose(found, start, atol=1e-5)


def test_long_sources(tmp_path):
    lm = loaded(tmp_path, "t5")
    ids = np.random.default_rng(0).integers(3, 40, (1, 700))
    assert np.isfinite(lm.logits(ids, target_ids=[[0]])).all()
    bart = loaded(tmp_path, "bart")
    with pytest.raises(UserError, match="token_ids has 81 positions, the model's context is 80"):
        bart.hidden(np.ones((1, 81)))


def test_input_errors(lm):
    with pytest.raises(UserError, match=f"a {lm.config.family} model needs target_ids"):
        lm.logits([[1, 2]])
    with pytest.raises(UserError, match="target_ids has 2 rows and token_ids 1"):
        lm.logits([[1, 2]], target_ids=[[1], [2]])
    with pytest.raises(UserError, match=r"target_ids must lie in 0\.\.39"):
        lm.logits([[1, 2]], target_ids=[[40]])


def test_choices_are_scored_as_targets_of_the_prompt(lm):
    """Several prompts a row, and choices of several tokens, against one full pass a pair."""
    lm = dataclasses.replace(lm, tokenizer=byte_tokenizer())  # its '!' is 0, '"' is 1, ...
    prompts = ["%&'()*", "+,-", "./0123456789", "ABC"]
    choices = ("AB", "C", "AD")
    test = tuple(Example(p, p, choices, 0, p) for p in prompts)
    task = Task("t", choices, test, (), test, fewshot_delimiter=";", target_delimiter="")
    predictor = InContext(2, readings=()).fit(lm, task, Labelled(test[:2], ()), 0, Log())
    found = np.stack(predictor.predict(test, Meter())[""])
    pairs = [(p, c) for p in predictor.prompts(test) for c in choices]
    sources, targets = ([lm.text.encode(t) for t in texts] for texts in zip(*pairs, strict=True))
    ids, mask = padded(sources)
    logits = lm.logits(ids, mask, [[lm.config.start_id, *t][:2] for t in targets])
    logp = np.asarray(jax.nn.log_softmax(logits))
    expected = [
        sum(row[u, i] for u, i in enumerate(t)) for row, t in zip(logp, targets, strict=True)
    ]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-4)


def padded(rows):
    """Ids and mask of rows of unequal lengths."""
    longest = max(map(len, rows))
    ids = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
    return ids, np.stack([np.arange(longest) < len(row) for row in rows])


def test_what_a_source_or_choice_cannot_be(lm):
    lm = dataclasses.replace(lm, tokenizer=byte_tokenizer())
    for prompt, choice, words in ((" ", "A", "prompt 0 is empty"), ("A", "", "choice '' has no")):
        test = (Example("0", prompt, (choice, "B"), 0, "0"),)
        task = Task("t", (), test, (), test, target_delimiter="")
        fitted = InContext().fit(lm, task, Labelled((), ()), 0, Log())
        with pytest.raises(UserError, match=words):
            fitted.predict(test, Meter())


def test_copies_of_the_token_table_are_not_read(tmp_path):
    copies = {name: np.zeros((40, 32), np.float32) for name in NAMES}
    relative = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    t5 = copies | {relative: np.zeros((16, 4), np.float32)}
    assert_same(loaded(tmp_path / "a", "t5", extra=t5).params, loaded(tmp_path / "b", "t5").params)
    bart = {f"model.{k}": v for k, v in copies.items()}
    bart["lm_head.weight"] = copies[NAMES[0]]
    expected = loaded(tmp_path / "c", "bart").params
    assert_same(loaded(tmp_path / "d", "bart", extra=bart).params, expected)


def test_bart_without_a_head_has_no_bias_and_other_names(tmp_path):
    def bare(name):
        return "" if name == "final_logits_bias" else name.removeprefix("model.")

    whole, base = (loaded(tmp_path / x, "bart", rename) for x, rename in
                   (("a", lambda name: name), ("b", bare)))  # fmt: skip
    bias = whole.params.pop("head_bias")
    assert_same(base.params, whole.params)
    found = base.logits(parity.IDS, target_ids=parity.TARGET_IDS) + bias
    expected = np.load(parity.REFERENCES / "parity.npz")["bart/logits"]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_both_ways_to_say_t5_v1_1(tmp_path):
    old = loaded(tmp_path / "a", "t5_v1_1")
    new = loaded(tmp_path / "b", "t5_v1_1", tie_word_embeddings=True, scale_decoder_outputs=False)
    assert old.config == new.config
    assert not old.config.scaled_head and not old.config.tied and old.config.gated
    first = loaded(tmp_path / "c", "t5").config
    assert first.scaled_head and first.tied and not first.gated


def test_a_t5_v1_0_with_its_copied_head_keeps_its_scale(tmp_path):
    shape = CASES["t5"]["shapes"]["shared.weight"]
    head = {"lm_head.weight": parity.tensor("shared.weight", shape)}
    lm = loaded(tmp_path, "t5", extra=head)
    expected = np.load(parity.REFERENCES / "parity.npz")["t5/logits"]
    found = lm.logits(parity.IDS, target_ids=parity.TARGET_IDS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
