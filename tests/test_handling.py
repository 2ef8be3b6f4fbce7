"""What happens to training examples: class weights, sampling, smoothing, changed copies, focal."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite.adapt import METHODS, attach
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.examples import Handling
from lmlite.arms.items import encode_examples, training_items
from lmlite.arms.tuned import Tuned
from lmlite.data import augment
from lmlite.data.balance import balanced_weights, resampled
from lmlite.data.pack import pack
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer
from lmlite.step import loss
from lmlite.train import Settings

TARGETS = [0] * 6 + [1] * 3 + [2]
CHOICES = ("aa", "bb", "c")
EXAMPLES = tuple(Example(f"{i}", f"In: xyz{i}w.\nOut:", CHOICES, t, f"{i}")
                 for i, t in enumerate(TARGETS))  # fmt: skip
TASK = Task("t", CHOICES, EXAMPLES, (), EXAMPLES, frame="In: {}.\nOut:".format)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(layers=1)


@pytest.fixture(scope="module")
def headed(lm):
    return attach(METHODS["linear_probe"](), lm, jax.random.key(0), len(CHOICES))[0]


def weights(items):
    """The weight of each (item, choice) in packed batches, counted once a choice."""
    found = {}
    for batch in pack(items, 64, 4):
        for u, m in zip(*np.nonzero(batch.weights), strict=True):
            found[int(batch.owner[u]), int(batch.choice[u, m])] = float(batch.weights[u, m])
    return found


def test_balanced_weights_are_those_of_scikit_learn():
    np.testing.assert_allclose(balanced_weights(TARGETS, 3), [10 / 18, 10 / 9, 10 / 3])
    assert balanced_weights([1, 1], 3) == (0.0, pytest.approx(1 / 3), 0.0)
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    found = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    np.testing.assert_allclose(balanced_weights(TARGETS, 3), found)


def test_sampling_makes_classes_equal():
    over, under = (resampled(TARGETS, kind, 0) for kind in ("over", "under"))
    assert over[:10] == list(range(10)) and Counter(TARGETS[i] for i in over) == {0: 6, 1: 6, 2: 6}
    assert Counter(i for i in over if TARGETS[i] == 1) == {6: 2, 7: 2, 8: 2}
    assert Counter(TARGETS[i] for i in under) == {0: 1, 1: 1, 2: 1}
    assert under == resampled(TARGETS, "under", 0)
    assert len({tuple(resampled(TARGETS, "under", seed)) for seed in range(9)}) > 1
    assert resampled(TARGETS, "", 0) == list(range(10))


def test_by_default_nothing_happens(lm, headed):
    for model in (lm, headed):
        encoded = encode_examples(model, TASK, EXAMPLES)
        expected = training_items(model, encoded, TARGETS)
        found = Handling().items(model, TASK, EXAMPLES, 0)
        assert repr(found) == repr(expected)


def test_classes_weigh_in_the_loss(lm, headed):
    for model in (lm, headed):
        for given in ("balanced", f"{10 / 18},{10 / 9},{10 / 3}"):
            items = Handling(class_weights=given).items(model, TASK, EXAMPLES, 0)
            found = weights(items)
            choice = TARGETS if model is headed else [0] * 10
            assert found.keys() == set(enumerate(choice))
            for i, t in enumerate(TARGETS):
                np.testing.assert_allclose(found[i, choice[i]], [10 / 18, 10 / 9, 10 / 3][t])


def test_smoothing_spreads_the_answer(lm, headed):
    for model in (lm, headed):
        items = Handling(label_smoothing=0.3, class_weights="1,2,4").items(
            model, TASK, EXAMPLES, 0)  # fmt: skip
        found = weights(items)
        for i, t in enumerate(TARGETS):
            expected = 2.0**t * (0.1 + 0.7 * np.eye(3)[t])
            np.testing.assert_allclose([found[i, c] for c in range(3)], expected, rtol=1e-6)


def test_copies_change_the_text_alone(lm):
    plain = training_items(lm, encode_examples(lm, TASK, EXAMPLES), TARGETS)
    made = Handling(copies=2, token_dropout=0.3, token_swap=0.3)
    items = made.items(lm, TASK, EXAMPLES, 0)
    assert len(items) == 30 and repr(items[:10]) == repr(plain)
    texts = [lm.text.decode(item.ids) for item in items]
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        original = EXAMPLES[i % 10].prompt
        assert text.startswith("In: ") and ".\nOut:" in text  # the template's own
        assert [t for read in item.targets for _, t in read] == [
            t for read in plain[i % 10].targets for _, t in read
        ]
        assert not Counter(text.split("Out")[0]) - Counter(original)
    assert sum(text != texts[i % 10] for i, text in enumerate(texts)) > 10
    assert repr(items) == repr(made.items(lm, TASK, EXAMPLES, 0))
    assert repr(items) != repr(made.items(lm, TASK, EXAMPLES, 1))


@pytest.mark.parametrize("chat", [False, True])
def test_what_stands_around_the_template_stays_too(lm, chat):
    task = dataclasses.replace(TASK, description="Say which.\n", chat=chat)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}:"
    own = Tokenizer(lm.text.backend, {**lm.text.config, "chat_template": template})
    lm = dataclasses.replace(lm, tokenizer=own)
    plain = Handling().items(lm, task, EXAMPLES, 0)
    items = Handling(copies=1, token_dropout=0.4).items(lm, task, EXAMPLES, 0)[10:]
    before = "<system>Say which.\n</system><user>In: " if chat else "Say which.\nIn: "
    texts = [lm.text.decode(item.ids) for item in items]
    assert all(text.startswith(before) and ".\nOut:" in text for text in texts)
    assert sum(map(len, texts)) < sum(len(lm.text.decode(item.ids)) for item in plain)


def test_a_template_of_the_text_alone_has_nothing_to_keep(lm):
    bare = tuple(dataclasses.replace(e, prompt=f"xyz{e.id}w") for e in EXAMPLES)
    task = dataclasses.replace(TASK, train=bare, frame=str)
    items = Handling(copies=1, token_dropout=0.5).items(lm, task, bare, 0)
    assert 0 < sum(len(item.ids) for item in items[10:]) < sum(len(item.ids) for item in items[:10])


def test_tokens_are_swapped_in_pairs_and_never_all_dropped():
    draw = np.random.default_rng(0)
    assert augment.perturbed(range(5), 0.0, 1.0 - 1e-12, draw) == [1, 0, 3, 2, 4]
    assert augment.perturbed([7, 8], 1.0 - 1e-12, 0.0, draw) == [7]
    kept = [len(augment.perturbed(range(100), 0.25, 0.0, draw)) for _ in range(200)]
    assert abs(np.mean(kept) - 75) < 1.5
    assert augment.inner([1, 2, 7, 8, 3], [1, 2, 3]) == slice(2, 4)
    assert augment.inner([1, 2, 3], [1, 2, 3]) == slice(3, 3)


def test_a_hook_rewrites_copies(lm):
    """The texts of the columns, not the template's own words."""
    items = Handling(copies=1, rewrite="string:capwords").items(lm, TASK, EXAMPLES, 0)
    assert lm.text.decode(items[10].ids).startswith("In: Xyz0w.\nOut:")
    pieces = ["a: ", "\nb: ", "\nc:"]
    assert augment.reworded("a: x\nb: y\nc:", pieces, str.upper) == "a: X\nb: Y\nc:"
    assert augment.reworded("a: x\nb: \nc:", pieces, str.upper) == "a: X\nb: \nc:"
    assert augment.reworded("other", pieces, str.upper) == "OTHER"


@pytest.mark.parametrize("name", ["builtins:len", "json:loads", "builtins:print"])
def test_a_hook_that_gives_no_text_is_told_of(lm, name):
    with pytest.raises(UserError, match=f"rewrite='{name}' (fails at|gives .*not a text)"):
        Handling(copies=1, rewrite=name).items(lm, TASK, EXAMPLES, 0)


def test_the_template_between_two_columns_stays(lm):
    two = "P: {0}\nQ {0}\nA:".format
    examples = tuple(
        dataclasses.replace(e, prompt=f"P: xyz{i}w\nQ uvu{i}\nA:") for i, e in enumerate(EXAMPLES)
    )
    task = dataclasses.replace(TASK, train=examples, frame=two)
    items = Handling(copies=1, token_dropout=0.7, token_swap=0.3).items(lm, task, examples, 0)
    for item in items[len(examples) :]:
        text = lm.text.decode(item.ids)
        assert text.startswith("P: ") and "\nQ " in text and "\nA:" in text
    assert any(len(i.ids) < len(items[0].ids) for i in items[len(examples) :])


def test_focal_loss_is_its_formula():
    p, w = np.array([[0.9], [0.2]]), np.array([[1.0], [3.0]])
    found = loss(jnp.log(p), jnp.asarray(w), gamma=2.0)
    np.testing.assert_allclose(found, -(w * (1 - p) ** 2 * np.log(p)).sum() / 4, rtol=1e-5)
    plain = loss(jnp.log(p), jnp.asarray(w))
    np.testing.assert_allclose(plain, -(w * np.log(p)).sum() / 4, rtol=1e-6)
    certain = jax.grad(lambda x: loss(x, jnp.ones((1, 1)), gamma=0.5))(jnp.zeros((1, 1)))
    assert np.isfinite(certain).all()


def test_an_arm_trains_with_all_of_it(lm):
    optim = dict(learning_rate=1e-2, warmup=0.0, accumulate=1, clip_norm=1.0)
    handling = Handling("balanced", "over", 0.1, 1, 0.1, 0.1)
    arm = Tuned(METHODS["lora"](), Settings(2, 8, 0, optim, focal_gamma=1.0), handling)
    assert arm.form() is None and dataclasses.replace(arm, handling=Handling()).form()
    losses = []
    log = Log(scalars=lambda step, values: losses.append(values["loss"]))
    arm.fit(lm, TASK, Labelled(EXAMPLES, ()), 0, log)
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("given", "words"), [
    (dict(class_weights="even"), "class_weights='even' is neither 'balanced' nor numbers"),
    (dict(class_weights="0,0,0"), "class_weights='0,0,0' must be finite, .* not all of them 0"),
    (dict(class_weights="nan,1,1"), "class_weights='nan,1,1' must be finite"),
    (dict(class_weights="-1,1,1"), "class_weights='-1,1,1' must be finite, not negative"),
    (dict(sampling="up"), "sampling='up' is unknown; known: over, under"),
    (dict(label_smoothing=1.0), "label_smoothing=1.0 must be at least 0, below 1"),
    (dict(copies=1), "data.copies=1 copies are made where"),
    (dict(token_swap=0.1), "data.copies=0 copies are made where"),
])  # fmt: skip
def test_settings_that_cannot_be(given, words):
    with pytest.raises(UserError, match=words):
        Handling(**given)


def test_settings_that_do_not_fit_the_task(lm):
    settings = Settings(1, 1, 0, dict(learning_rate=1e-2, warmup=0.0, accumulate=1, clip_norm=1.0))
    with pytest.raises(UserError, match="class_weights .* nothing with train.batch_size=1"):
        Tuned(METHODS["lora"](), settings, Handling("balanced"))
    with pytest.raises(UserError, match="must be 3 numbers, one a class"):
        Handling(class_weights="1,2").items(lm, TASK, EXAMPLES, 0)
    with pytest.raises(UserError, match="need task.choices"):
        Handling(sampling="over").items(lm, dataclasses.replace(TASK, choices=()), EXAMPLES, 0)
    with pytest.raises(UserError, match="rewrite='no.where:f' is no module:function"):
        Handling(copies=1, rewrite="no.where:f").items(lm, TASK, EXAMPLES, 0)
