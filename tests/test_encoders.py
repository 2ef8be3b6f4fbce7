"""Encoders: what tokens see, pooling, names of older checkpoints, and tuning through a head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from tiny_lm import tiny_encoder
from tiny_models import assert_same

import lmlite
from lmlite.adapt import METHODS, attach_headed
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.arms.tuned import Tuned
from lmlite.data.item import class_item
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.icl.score import score
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter
from lmlite.train import Settings

CASES = parity.cases()
OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup=0.0, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return tiny_encoder()


def test_minilm_reproduces_its_similarity():
    lm = lmlite.load("package:all-minilm-l6-v2")
    pair = lm.embed(["A man is eating food.", "Someone is having a meal."])
    assert pair[0] @ pair[1] == pytest.approx(0.6888, abs=1e-4)
    assert np.linalg.norm(pair, axis=1) == pytest.approx(1, abs=1e-6)
    with pytest.raises(UserError, match="no masked-token head; use hidden or embed"):
        lm.logits([[101, 102]])


def test_tokens_see_their_whole_segment_and_nothing_else(tiny):
    ids = np.random.default_rng(0).integers(0, 256, (1, 12))
    segment = jnp.asarray([[1] * 5 + [2] * 6 + [0]])
    position = jnp.asarray([[*range(5), *range(6), 0]])
    tokens = Tokens(position, segment, 0 * segment)

    def state(x, at):
        return tiny.module.apply({"params": tiny.params}, x, tokens, method="trunk")[0][0, at, 0]

    x = tiny.module.apply({"params": tiny.params}, ids, tokens, method="bottom")
    for at, seen in ((0, range(5)), (7, range(5, 11))):
        moved = np.abs(jax.jit(jax.grad(state), static_argnums=1)(x, at)[0]).max(-1) > 0
        assert [i for i in range(12) if moved[i]] == [*seen]


def test_packed_rows_equal_single_texts(tiny):
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 256, 5), rng.integers(0, 256, 7)
    ids = jnp.asarray([[*one, *two]])
    segment = jnp.asarray([[1] * 5 + [2] * 7])
    tokens = Tokens(jnp.asarray([[*range(5), *range(7)]]), segment, 0 * segment)
    logits = jax.jit(tiny.module.apply)({"params": tiny.params}, ids, tokens)
    np.testing.assert_allclose(logits[0, :5], tiny.logits([one])[0], atol=1e-4)
    np.testing.assert_allclose(logits[0, 5:], tiny.logits([two])[0], atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling(tiny, pooling):
    texts = ["a", "some longer text, of another batch width than the others", "abc"]
    found = tiny.embed(texts, pooling, normalize=False)
    for text, vector in zip(texts, found, strict=True):
        states = np.asarray(tiny.hidden([tiny.text.encode(text)]))[0]
        expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
    "texts, pooling, words",
    [
        (["a"], "max", "pooling 'max' is unknown; known: mean, cls, last"),
        (["a", ""], "mean", r"texts\[1\] is empty"),
        ("a", "mean", "give a list"),
        (["a" * 65], "mean", "has 65 tokens, the model's context is 64"),
    ],
)
def test_embed_errors(tiny, texts, pooling, words):
    with pytest.raises(UserError, match=words):
        tiny.embed(texts, pooling)


def test_target_ids_are_for_other_models(tiny):
    with pytest.raises(UserError, match="a bert model takes no target_ids"):
        tiny.logits([[1]], target_ids=[[1]])


def renamed(folder, case, rename, extra=()):
    """A case's directory with other tensor names and, beside them, copies of some or zeros."""
    spec = CASES[case]
    tensors = parity.write(folder, spec["config"], spec["shapes"])
    parity.save(folder, {rename(k): v for k, v in tensors.items()} | {
        name: tensors[told] if isinstance(told, str) else np.zeros(told, np.float32)
        for name, told in extra
    })  # fmt: skip
    return lmlite.load(folder)


TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    "case, rename, extra",
    [
        ("bert", lambda k: k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"),
         [("cls.predictions.decoder.weight", TABLE), ("cls.seq_relationship.bias", (2,))]),
        ("bert", lambda k: k.removeprefix("bert."), [("cls.predictions.decoder.bias", (40,))]),
        ("bert_headless", lambda k: f"bert.{k}", [("bert.embeddings.position_ids", (1, 64))]),
        ("roberta", lambda k: k, [("lm_head.decoder.weight", TABLE.replace("bert", "roberta")),
                                  ("lm_head.decoder.bias", (40,))]),
        ("roberta_headless", lambda k: f"roberta.{k}", []),
        ("roberta_classifier", lambda k: k, [("roberta.pooler.dense.weight", (32, 32)),
                                             ("roberta.pooler.dense.bias", (32,))]),
        ("bert", lambda k: k.replace(TABLE, "cls.predictions.decoder.weight"), []),
        ("bert", lambda k: k.replace("cls.predictions.bias", "cls.predictions.decoder.bias"), []),
        ("distilbert", lambda k: k, [("vocab_projector.weight", f"distil{TABLE}")]),
        ("distilbert_headless", lambda k: f"distilbert.{k}", []),
    ],
)  # fmt: skip
def test_other_names_and_copies_mean_the_same(tmp_path, case, rename, extra):
    plain = renamed(tmp_path / "a", case, lambda name: name)
    other = renamed(tmp_path / "b", case, rename, extra)
    assert other.config == plain.config
    assert_same(other.params, plain.params)


@pytest.mark.parametrize(
    "case, head", [("bert", "cls.predictions.decoder"), ("roberta", "lm_head.decoder"),
                   ("distilbert", "vocab_projector")]
)  # fmt: skip
def test_a_masked_head_of_its_own_is_read_and_saved(tmp_path, case, head):
    plain = renamed(tmp_path / "a", case, lambda name: name)
    own = renamed(tmp_path / "b", case, lambda name: name, [(f"{head}.weight", (40, 32))])
    assert plain.config.tied and not own.config.tied
    bias = plain.params["masked"]["bias"]
    np.testing.assert_allclose(own.logits(parity.IDS)[0, 0], bias, atol=1e-6)  # of zeros
    own.save(tmp_path / "c")
    assert_same(lmlite.load(tmp_path / "c").params, own.params)


@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering", "MultipleChoice"])
def test_other_heads_are_refused_by_name(tmp_path, head):
    spec = CASES["bert_classifier"]  # whose tensors an old model of single tokens may have
    config = spec["config"] | {"architectures": [f"BertFor{head}"]}
    parity.write(tmp_path, config, spec["shapes"])
    words = f"says 'BertFor{head}', .* BertForMaskedLM, BertModel, BertForSequenceClassification$"
    with pytest.raises(UserError, match=words):
        lmlite.load(tmp_path)


def test_roberta_has_the_positions_its_table_leaves(tmp_path):
    lm = renamed(tmp_path, "roberta", lambda name: name)
    assert (lm.config.position_offset, lm.config.max_positions) == (2, 78)
    with pytest.raises(UserError, match="token_ids has 79 positions, the model's context is 78"):
        lm.hidden(np.ones((1, 79)))


def task(n=60):
    """Whether a text starts with b; its other letters are noise."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(n):
        noise = "".join(draw.choice(list("xyz "), draw.integers(2, 15)))
        made.append(Example(f"{i}", "ab"[i % 2] + noise + ".", ("no", "yes"), i % 2, f"{i}"))
    return Task("letters", ("no", "yes"), tuple(made[:40]), (), tuple(made[40:]))


@pytest.mark.parametrize(
    "method", ["linear_probe", "lora", "full", "last_layers", "ia3", "fish_mask", "layerwise"]
)
def test_every_method_tunes_an_encoder_through_a_head(tiny, method):
    letters = task()
    data = Labelled(letters.train[:32], letters.train[32:])
    arm = Tuned(METHODS[method](), Settings(epochs=6, batch_size=8, patience=0, optim=OPTIM))
    predictor = arm.fit(tiny, letters, data, 0, Log())
    scores = predictor.predict(letters.test, Meter())[""]
    right = [int(np.argmax(s)) == e.target for s, e in zip(scores, letters.test, strict=True)]
    assert np.mean(right) >= 0.9
    head = tiny.config.width * 2 + 2
    assert (predictor.cost.trainable_params == head) == (method == "linear_probe")


@pytest.mark.parametrize("method", ["linear_probe", "lora"])
def test_a_head_needs_choices_that_all_items_share(tiny, method):
    letters = task()
    own = [dataclasses.replace(e, choices=(f"no{e.id}", "yes")) for e in letters.train]
    unlike = dataclasses.replace(letters, choices=(), train=tuple(own))
    arm = Tuned(METHODS[method](), Settings(epochs=1, batch_size=8, patience=0, optim=OPTIM))
    with pytest.raises(UserError, match="a classification head needs task.choices"):
        arm.fit(tiny, unlike, Labelled(unlike.train[:8], ()), 0, Log())


def test_a_head_reads_the_mean_of_a_texts_own_states(tiny):
    headed, _ = attach_headed(METHODS["full"](), tiny, jax.random.key(0), 3)
    draw = np.random.default_rng(0)
    probe = {"kernel": draw.normal(size=(tiny.config.width, 3)), "bias": draw.normal(size=3)}
    headed = dataclasses.replace(headed, params=headed.params | {"probe": probe})
    texts = [draw.integers(1, tiny.config.vocab_size, n) for n in (9, 4, 7)]
    items = [class_item(ids, range(3), tiny.config.reads) for ids in texts]
    scores = score(headed.network, headed.params, items, tiny.config.max_positions, Meter())
    for ids, found in zip(texts, scores, strict=True):
        state = np.asarray(tiny.hidden(ids[None]))[0].mean(0)
        logits = state @ probe["kernel"] + probe["bias"]
        np.testing.assert_allclose(found, logits - np.logaddexp.reduce(logits), atol=1e-4)


def test_an_encoder_is_not_prompted(tiny):
    letters = task()
    fitted = InContext().fit(tiny, letters, Labelled(letters.train, ()), 0, Log())
    with pytest.raises(UserError, match="answers by a classification head only.*'tuned' arm"):
        fitted.predict(letters.test, Meter())
