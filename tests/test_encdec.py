"""Encoder-decoders: what a target sees, cached decoding, packed pairs, arms, files of all ages."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from tiny_lm import byte_tokenizer
from tiny_models import assert_same

import lmlite
from lmlite import tree
from lmlite.adapt import METHODS, attach
from lmlite.arms import items
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.data.task import Example, Task
from lmlite.decode import generate
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded
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


def test_whether_a_text_is_what_it_writes(lm):
    lm = dataclasses.replace(lm, tokenizer=byte_tokenizer())
    test = []
    for prompt in ("%&'()*", "+,-", "./0123456789", "ABC"):
        ids, mask = padded([lm.text.encode(prompt)])
        said = [*lm.config.start_ids]
        for _ in range(3):
            said.append(int(np.asarray(lm.logits(ids, mask, [said]))[0, -1].argmax()))
        said = said[len(lm.config.start_ids) :]
        for written in (said, said[:1], [*said[:2], said[2] ^ 1]):
            test.append(Example(f"{len(test)}", prompt, (), lm.text.decode(written), ""))
    task = Task("t", (), tuple(test), (), tuple(test), target_delimiter="",
                metrics=("greedy_accuracy",))  # fmt: skip
    predictor = InContext(0, readings=()).fit(lm, task, Labelled((), ()), 0, Log())
    found = predictor.predict(test, Meter())[""]
    assert [s[1] for s in found] == [0, 0, 1] * 4


@pytest.mark.parametrize(
    "config, generation, expected",
    [
        ({}, None, (2,)),
        ({"forced_bos_token_id": 3}, None, (2, 3)),
        ({"force_bos_token_to_be_generated": True, "bos_token_id": 4}, None, (2, 4)),
        ({"forced_bos_token_id": 3}, {"forced_bos_token_id": 5}, (2, 5)),
        ({"forced_bos_token_id": 3}, {}, (2,)),  # `transformers` then goes by the latter alone
    ],
)
def test_what_starts_the_decoder(tmp_path, config, generation, expected):
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    lm = loaded(tmp_path, "bart", decoder_start_token_id=2, **config)
    assert lm.config.start_ids == expected
    lm.save(tmp_path / "saved")
    assert lmlite.load(tmp_path / "saved").config == lm.config


def test_a_forced_token_starts_every_text_and_stands_before_every_choice(tmp_path):
    lm = loaded(tmp_path, "bart", forced_bos_token_id=7, eos_token_id=None)
    lm = dataclasses.replace(lm, tokenizer=byte_tokenizer())
    for settings in ({}, {"beams": 3}, {"temperature": 1.0, "top_k": 5, "repetition_penalty": 2.0}):
        (made,) = generate(lm, parity.PROMPT.tolist(), max_new_tokens=5, **settings)
        assert made.ids[0] == 7 and len(made.ids) == 5
    plain = dataclasses.replace(lm, config=dataclasses.replace(lm.config, forced_id=None))
    start, prompt = [lm.config.start_id, 7], Encoded(parity.PROMPT[0].tolist(), [[8, 9], [10]])
    found = items.scored_items(lm, [prompt])[0]
    assert found.ids.tolist() == [*start, 8] and found.position.tolist() == [0, 1, 2]
    assert found.reads == (1, 2) and found.targets == (((0, 8), (1, 10)), ((0, 9),))
    assert items.scored_items(plain, [prompt])[0].ids.tolist() == [start[0], 8]
    room = lm.config.max_positions - 1
    assert len(generate(lm, parity.PROMPT.tolist(), max_new_tokens=room)[0].ids) == room


@pytest.mark.parametrize("beams", [1, 3])
def test_a_forced_token_as_in_transformers(tmp_path, beams):
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    lm = loaded(tmp_path, "bart", forced_bos_token_id=7, eos_token_id=9)
    lm.save(tmp_path / "saved")
    for folder in (tmp_path, tmp_path / "saved"):
        model = transformers.BartForConditionalGeneration.from_pretrained(folder).eval()
        options = dict(max_new_tokens=20, num_beams=beams, do_sample=False, length_penalty=2.0)
        out = model.generate(torch.from_numpy(parity.PROMPT), forced_eos_token_id=None, **options)
        expected = [i for i in out[0].tolist()[1:] if i not in (9, lm.config.pad_id)]
        found = generate(lm, parity.PROMPT.tolist(), max_new_tokens=20, beams=beams,
                         length_penalty=2.0)  # fmt: skip
        assert found[0].ids == expected and expected[0] == 7


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
    shape = CASES["bart"]["shapes"]["model.shared.weight"]
    bart["lm_head.weight"] = parity.tensor("model.shared.weight", shape)
    expected = loaded(tmp_path / "c", "bart").params
    assert_same(loaded(tmp_path / "d", "bart", extra=bart).params, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case, table", [("t5", "shared.weight"), ("bart", "model.shared.weight")])
def test_the_token_table_may_have_the_name_of_a_copy(tmp_path, case, table, name):
    copy = "model." * (case == "bart") + name
    found = loaded(tmp_path / "a", case, lambda x: copy if x == table else x)
    assert_same(found.params, loaded(tmp_path / "b", case).params)


def test_bart_has_no_head_of_its_own(tmp_path):
    head = {"lm_head.weight": np.zeros((40, 32), np.float32)}
    with pytest.raises(UserError, match="'lm_head.weight' differs from .* 'model.shared.weight'"):
        loaded(tmp_path, "bart", extra=head)


def test_bart_for_classes_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="says 'BartForSequenceClassification', which is not"):
        loaded(tmp_path, "bart", architectures=["BartForSequenceClassification"])


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


def test_any_set_of_blocks_trains(lm):
    """Of the encoder too."""
    adapted, labels = attach(METHODS["layers"](layers=(), encoder=(1,)), lm, jax.random.key(0))
    chosen = {path for path, label in labels.items() if label != tree.FROZEN}
    assert chosen == {path for path in labels if path.startswith("encoder/layers_1/")} != set()
    _, labels = attach(METHODS["layers"](layers=(0,), encoder=(0, 1)), lm, jax.random.key(0))
    assert set(labels.values()) == {"layer_0", "encoder_0", "encoder_1", tree.FROZEN}
