"""Label words found from examples, against the papers' sums over plain forward passes."""

import dataclasses
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tokenizers
from test_in_context import POOL, TASK, TEST
from tiny_lm import tiny_lm

from lmlite import arms
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.arms.worded import found_words
from lmlite.errors import UserError
from lmlite.evaluate import evaluate
from lmlite.icl import label_words
from lmlite.models.build import build
from lmlite.models.config import EncoderConfig
from lmlite.models.lm import LM
from lmlite.models.tokenizer import Tokenizer, byte_level
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, PeakMemory

WORDS = ("good", "Good", "bad", "fine", "poor", "dull", "glad", "sad", "x1", "z")
DATA = Labelled(POOL[:8], POOL[8:])


def worded_tokenizer() -> Tokenizer:
    """Bytes, and WORDS behind a space as one token each; 'sad' merges with a stop before it."""
    vocab = {c: i for i, c in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for text in (*(f"Ġ{word}" for word in WORDS), "good", "ĠgoodĠ"):
        for n in range(1, len(text)):
            pair = text[:n], text[n]
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault("".join(pair), len(vocab))
    return Tokenizer(byte_level(vocab, merges), {})


@pytest.fixture(scope="module")
def lm():
    text = worded_tokenizer()
    return dataclasses.replace(tiny_lm(layers=2, vocab_size=text.vocab_size), tokenizer=text)


def next_logp(lm, prompts):
    """float64[n, V] where an answer's first token is predicted, by a plain pass."""
    ids, mask = np.zeros((len(prompts), 48), int), np.zeros((len(prompts), 48), bool)
    reads = []
    for row, text in enumerate(map(lm.text.encode, prompts)):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
        reads.append(len(text) - 1 if lm.config.causal else text.index(lm.text.mask_id))
    logp = np.asarray(jax.nn.log_softmax(lm.logits(ids, mask), -1), np.float64)
    return logp[np.arange(len(prompts)), reads]


def words_of(lm):
    """Ids of the words that are one token as an answer."""
    ids = {}
    for word in {lm.text.decode([i]).strip() for i in range(lm.text.vocab_size)}:
        whole = lm.text.encode(f" {word}")
        if len(word) > 1 and word.isalpha() and len(whole) == 1:
            ids[whole[0]] = word
    return ids


def oracle(lm, examples, choices):
    """The best words by likelihood ratio, which is summed as it stands in the paper."""
    logp = next_logp(lm, [e.prompt for e in examples])
    target = np.array([e.target for e in examples])
    odds = logp - np.log1p(-np.exp(logp))
    ids = words_of(lm)
    pairs = []
    for c in range(len(choices)):
        own = target == c
        scale = own.sum() / (~own).sum()
        ratio = odds[own].sum(0) - scale * odds[~own].sum(0)
        pairs += [(ratio[i] / own.sum(), c, word) for i, word in ids.items()]
    found = {}
    for _, c, word in sorted(pairs, reverse=True):
        if c not in found and word.lower() not in {w.lower() for w in found.values()}:
            found[c] = word
    return tuple(found[c] for c in range(len(choices)))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_words_are_those_with_the_best_ratio(lm, classes):
    choices = ("no", "yes", "so")[:classes]
    rows = tuple(
        dataclasses.replace(e, choices=choices, target=(0, 1, 0, 2)[i % 4] % classes)
        for i, e in enumerate(POOL)
    )
    assert len(set(Counter(e.target for e in rows).values())) > 1  # so that the balance counts
    task = dataclasses.replace(TASK, choices=choices, train=rows)
    found = found_words(lm, task, rows, Meter())
    assert found == oracle(lm, rows, choices)
    assert len({word.lower() for word in found}) == classes
    assert set(found) <= {lm.text.decode([i]).strip() for i in range(256, lm.text.vocab_size)}


def test_candidates_are_what_is_likely_in_a_class(lm, monkeypatch):
    monkeypatch.setattr(label_words, "CANDIDATES", 1)
    found = found_words(lm, TASK, POOL, Meter())
    logp, ids = next_logp(lm, [e.prompt for e in POOL]), words_of(lm)
    best = []
    for c in range(2):
        mean = logp[[e.target == c for e in POOL]].mean(0)
        best.append(ids[max(ids, key=mean.__getitem__)])
    assert best[0] != best[1] and found == tuple(best)


def test_two_classes_never_share_a_word(monkeypatch):
    """Nor its other case: who has the better ratio keeps it."""
    text = worded_tokenizer()
    odds = np.zeros((2, text.vocab_size))
    for word, both in {"good": (5, 0), "Good": (0, 4), "bad": (0, 3)}.items():
        odds[:, text.encode(f" {word}")[0]] = both
    monkeypatch.setattr(label_words, "_evidence", lambda *args: (odds, odds))

    def tokens(words):
        return [text.encode(f" {w}") for w in words]

    lm = SimpleNamespace(text=text)
    found = label_words.find_words(lm, [], [0, 1], ("no", "yes"), tokens, Meter())
    assert found == ("good", "bad")


def test_words_that_merge_or_stand_alone_elsewhere_are_no_candidates(lm):
    """'good' without its space, a prefix of a word, digits and lone letters."""
    known = {}
    order = np.arange(lm.text.vocab_size)

    def tokens(words):
        return [lm.text.encode(f" {w}") for w in words]

    ids = list(label_words._candidates(order, lm.text, tokens, known))
    assert set(WORDS[:8]) <= set(known.values()) and not {"x1", "z"} & set(known.values())
    assert all(lm.text.encode(f" {known[i]}") == [i] for i in ids)
    assert lm.text.encode("good")[0] not in ids


def test_the_arm_shows_scores_and_pays_for_its_words(lm):
    arm = InContext(shots=2, readings=("contextual",), label_words="found")
    predictor = arm.fit(lm, TASK, DATA, 0, Log())
    words = predictor.words
    assert words == found_words(lm, TASK, DATA.all, Meter()) and predictor.cost.examples == 12
    assert predictor.cost.train_flops > 0
    text, *_ = predictor.inner.prompts(TEST[:1])
    shown = predictor.inner.prompts.demonstrations
    assert text.startswith(f"{shown[0].prompt} {words[shown[0].target]};")
    (s,) = predictor.predict(TEST[:1], Meter())[""]
    (logp,) = next_logp(lm, [text])
    expected = [logp[lm.text.encode(f" {w}")[0]] for w in words]
    np.testing.assert_allclose(s, expected, atol=1e-4)
    identity = {"arm": "a", "family": "f", "task": "t", "split": "test", "seed": 0}
    results, predictions = evaluate(predictor, TASK, TEST, identity, PeakMemory())
    assert all(row["label_words"] == list(words) for row in results)
    for one in predictions:
        assert one["word"] == words[TASK.choices.index(one["prediction"])]
        assert one["target"] in TASK.choices


def test_an_encoder_finds_the_words_for_its_mask():
    text = worded_tokenizer()
    text.backend.add_special_tokens(["[MASK]"])
    config = EncoderConfig(
        vocab_size=text.vocab_size, width=16, layers=1, heads=2, kv_heads=2, head_size=8, hidden=16,
        max_positions=64, types=2, masked_head=True,
    )  # fmt: skip
    module = build(config)
    ids = jax.numpy.zeros((1, 4), int)
    params = module.init(jax.random.key(0), ids, Tokens.from_mask(ids == 0))["params"]
    params = jax.tree.map(lambda x: 6 * x if x.ndim == 2 else x, params)
    lm = LM(module, params, config, text, "tiny")
    rows = tuple(dataclasses.replace(e, prompt=f"[MASK] {e.prompt}") for e in POOL)
    assert found_words(lm, TASK, rows, Meter()) == oracle(lm, rows, TASK.choices)


def test_bad_settings(lm):
    one = Labelled(tuple(e for e in POOL if e.target == 0), ())
    arm = InContext(label_words="found")
    with pytest.raises(UserError, match="a labelled example of every class, and 'yes' has none"):
        arm.fit(lm, TASK, one, 0, Log())
    with pytest.raises(UserError, match="needs task.choices, the same for all items"):
        arm.fit(lm, dataclasses.replace(TASK, choices=()), DATA, 0, Log())
    with pytest.raises(UserError, match="no word left for 'no'"):  # its tokens are bytes
        arm.fit(tiny_lm(layers=1), TASK, DATA, 0, Log())
    with pytest.raises(UserError, match="label_words='sought' is unknown"):
        InContext(label_words="sought")


def test_the_variant_is_an_arm():
    from configs import common

    arm = arms.build(common.prompted("16-shot-words").to_dict())
    assert (arm.shots, arm.label_words, arm.readings) == (16, "found", ("contextual", "batch"))
