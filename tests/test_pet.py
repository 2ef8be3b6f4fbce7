"""A pattern with a mask and verbalizers (PET): scores, tuning without a head, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import byte_tokenizer

from lmlite import tree
from lmlite.adapt import METHODS
from lmlite.arms.arm import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.arms.items import fills_mask
from lmlite.arms.tuned import Tuned
from lmlite.data.task import Example, Task
from lmlite.errors import UserError
from lmlite.models.build import build
from lmlite.models.config import EncoderConfig
from lmlite.models.lm import LM
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter
from lmlite.train import Settings

BERT = EncoderConfig(
    vocab_size=257, width=32, layers=1, heads=4, kv_heads=4, head_size=8, hidden=48,
    max_positions=64, types=2, masked_head=True,
)  # fmt: skip
ROBERTA = dataclasses.replace(BERT, types=1, position_offset=2, family="roberta")
OPTIM = dict(
    learning_rate=1e-2, weight_decay=0.0, schedule="constant", warmup=0.0, clip_norm=1.0,
    accumulate=1, groups=(),
)  # fmt: skip


def model(config=BERT, mask="[MASK]"):
    """A random masked-token model; its mask is the id after all bytes."""
    tokenizer, module, ids = byte_tokenizer(), build(config), jnp.zeros((1, 4), jnp.int32)
    tokenizer.backend.add_special_tokens([mask])
    params = module.init(jax.random.key(0), ids, Tokens.from_mask(ids == 0))["params"]
    params = jax.tree.map(lambda x: x * 6 if x.ndim == 2 else x, params)
    return LM(module, params, config, tokenizer, "tiny")


def task(mask="[MASK]", choices=("n", "y"), n=48):
    """Whether a text has an a or a b first; the mask stands in its middle."""
    draw, made = np.random.default_rng(0), []
    for i in range(n):
        noise = "".join(draw.choice(list("xyz "), draw.integers(2, 12)))
        made.append(Example(f"{i}", f"{'ab'[i % 2]}{mask}{noise}.", choices, i % 2, f"{i}"))
    return Task(
        "pattern",
        choices,
        tuple(made[:32]),
        (),
        tuple(made[32:]),
        target_delimiter="",
        frame=lambda text: f"a{mask}{text}.",
    )


def zero_shot(lm, pattern):
    fitted = InContext(shots=0).fit(lm, pattern, Labelled(pattern.train, ()), 0, Log())
    return fitted.predict(pattern.test, Meter())


def by_hand(lm, pattern):
    """log p of each verbalizer at the mask, text by text, through `lm.logits`."""
    out = []
    for example in pattern.test:
        ids = lm.text.encode(example.prompt)
        logits = np.asarray(lm.logits([ids + [1] * (32 - len(ids))], [np.arange(32) < len(ids)]))
        logp = jax.nn.log_softmax(logits[0, ids.index(256)])
        out.append([logp[lm.text.encode(choice)[0]] for choice in example.choices])
    return np.asarray(out)


def test_a_description_is_read_with_every_text():
    """Not before them, as a decoder may: the tokens of an encoder see what follows."""
    lm, pattern = model(), dataclasses.replace(task(), description="zz y x ")
    scores = zero_shot(lm, pattern)[""]
    whole = [dataclasses.replace(e, prompt=f"zz y x {e.prompt}") for e in pattern.test]
    expected = by_hand(lm, dataclasses.replace(pattern, test=tuple(whole)))
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(("config", "mask"), [(BERT, "[MASK]"), (ROBERTA, "<mask>")])
def test_scores_are_those_of_the_masked_head_at_the_mask(config, mask):
    lm, pattern = model(config, mask), task(mask)
    np.testing.assert_allclose(zero_shot(lm, pattern)[""], by_hand(lm, pattern), atol=1e-4)


def test_calibration_leaves_out_the_content_free_text_that_is_a_mask():
    lm, pattern = model(), task()
    assert any(text.count("[MASK]") == 2 for text in pattern.content_free)
    found = zero_shot(lm, pattern)
    free = [e for e in pattern.content_free if e.count("[MASK]") == 1]
    prompts = tuple(dataclasses.replace(pattern.test[0], prompt=text) for text in free)
    prior = np.exp(by_hand(lm, dataclasses.replace(pattern, test=prompts)))
    prior = np.mean(prior / prior.sum(1, keepdims=True), axis=0)
    expected = by_hand(lm, pattern) - np.log(prior)
    gap = np.diff(found["contextual"], axis=1) - np.diff(expected, axis=1)
    np.testing.assert_allclose(gap, 0, atol=1e-4)


FAMILIES = {
    "lora": {}, "full": {}, "prompt_tuning": dict(length=4), "prefix_tuning": dict(length=4),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_methods_tunes_without_a_head(name):
    lm, pattern = model(), task()
    data = Labelled(pattern.train, ())
    assert fills_mask(lm, pattern.train)
    losses = []
    log = Log(scalars=lambda step, values: losses.append(values["loss"]))
    arm = Tuned(METHODS[name](**FAMILIES[name]), Settings(6, 8, 0, OPTIM))
    fitted = arm.fit(lm, pattern, data, 0, log)
    assert losses[-1] < losses[0] - 0.1
    scores = fitted.predict(pattern.test, Meter())[""]
    assert not any("probe" in path for path in tree.flatten(fitted.adaptation.params))
    np.testing.assert_allclose(scores, by_hand(fitted.adaptation.on(lm), pattern), atol=1e-3)


def without_head(lm):
    config = dataclasses.replace(lm.config, masked_head=False)
    return dataclasses.replace(lm, module=build(config), config=config)


@pytest.mark.parametrize(
    ("lm", "pattern", "message"),
    [
        (model(), task(mask=""), r"a prompt has 0 masks.*task.template one '\[MASK\]'"),
        (model(), task(mask="[MASK][MASK]"), r"a prompt has 2 masks.*task.template"),
        (model(), task(choices=("n", "yes")), "task.choices='yes' is 3 tokens.*one token each"),
        (without_head(model()), task(), "answers by a classification head only"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(lm, pattern, message):
    with pytest.raises(UserError, match=message) as error:
        zero_shot(lm, pattern)
    assert "\n" not in str(error.value)


def test_a_task_without_a_mask_is_tuned_through_a_head():
    assert not fills_mask(model(), task(mask="").train)
    assert not fills_mask(without_head(model()), task().train)


def test_another_models_mask_is_told_of():
    """It would be read as text, and a head trained on it."""
    with pytest.raises(UserError, match="'<mask>'; this model fills '.MASK.', name that"):
        fills_mask(model(), task("<mask>").train)
    assert fills_mask(model(ROBERTA, "<mask>"), task("<mask>").train)


def test_whether_a_word_is_the_likeliest_of_all_at_the_mask():
    lm = model()
    test, wanted = [], []
    for i in range(1, 25):
        prompt = f"{'ab'[i % 2]}[MASK]{'xyz'[i % 3] * i}."
        ids = lm.text.encode(prompt)
        best = int(np.asarray(lm.logits([ids]))[0, ids.index(lm.text.mask_id)].argmax())
        if best < 94:  # a character by itself
            for word in (lm.text.decode([best]), lm.text.decode([best ^ 1])):
                test.append(Example(f"{i} {word}", prompt, (), word, f"{i}"))
            wanted += [True, False]
    asked = Task("t", (), tuple(test), (), tuple(test), target_delimiter="",
                 metrics=("greedy_accuracy",))  # fmt: skip
    predictor = InContext(0, readings=()).fit(lm, asked, Labelled((), ()), 0, Log())
    found = [s[1] == 0 for s in predictor.predict(test, Meter())[""]]
    assert found == wanted and wanted
