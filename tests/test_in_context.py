"""Demonstrations, their order, and every reading of the scores, against plain computations."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_lm import tiny_encoder, tiny_lm

from configs import common
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.arms.items import encode_examples
from lmlite.data.task import Example, Generation, Task
from lmlite.errors import UserError
from lmlite.icl import calibrate, retrieve, score, write
from lmlite.report.variance import components
from lmlite.runtime import Meter

CHOICES = ("no", "yes")


def example(i: int, choices=CHOICES) -> Example:
    text = f"{'xyz'[i % 3] * (1 + i % 4)} {i}?"
    return Example(f"e{i}", text, choices, i % 2 if choices else "so", f"g{i}")


POOL = tuple(example(i) for i in range(12))
TEST = tuple(example(i) for i in range(20, 26))
TASK = Task("t", CHOICES, POOL, (), TEST, fewshot_delimiter=";", frame="{}?".format, premise="?")
DATA = Labelled(POOL[:8], POOL[8:])


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def logprob(lm, context: str, answer: str) -> float:
    """log p(answer | context) by one plain pass."""
    ids = lm.text.encode(context + answer)
    n = len(lm.text.encode(context))
    logp = np.asarray(jax.nn.log_softmax(lm.logits([ids]), -1))[0]
    return float(sum(logp[i - 1, ids[i]] for i in range(n, len(ids))))


def fitted(lm, task=TASK, seed=0, **fields):
    return InContext(**{"readings": (), **fields}).fit(lm, task, DATA, seed, Log())


def shown(e: Example) -> str:
    return f"{e.prompt} {e.answer};"


def test_every_query_shares_the_demonstrations_where_the_first_two_begin_alike(lm):
    alike = tuple(e for e in POOL if e.prompt.startswith("x"))
    data = Labelled(alike + tuple(e for e in POOL if e not in alike), ())
    predictor = InContext(2, readings=()).fit(lm, TASK, data, 0, Log())
    texts = predictor.prompts(TEST)
    assert all(tuple(lm.text.encode(text))[: len(predictor.prefix_ids)] == predictor.prefix_ids
               for text in texts)  # fmt: skip
    assert len(predictor.prefix_ids) > 10


@pytest.mark.parametrize("choose", ["balanced", "random", "first"])
def test_prompts_are_scored_as_they_stand(lm, choose):
    predictor = fitted(lm, shots=3, choose=choose)
    texts = predictor.prompts(TEST)
    scores = predictor.predict(TEST, Meter())[""]
    for text, s in zip(texts[:2], scores, strict=False):
        expected = [logprob(lm, text, f" {c}") for c in CHOICES]
        np.testing.assert_allclose(s, expected, atol=1e-4)
    demonstrations = predictor.prompts.demonstrations
    assert texts[0] == "".join(map(shown, demonstrations)) + TEST[0].prompt
    if choose == "first":
        assert demonstrations == POOL[:3]
        data = Labelled(POOL[5:9], ())  # of all rows, whichever are labelled
        other = InContext(3, readings=(), choose="first").fit(lm, TASK, data, 0, Log())
        assert other.prompts.demonstrations == POOL[:3]
    assert predictor.cost.examples == 3


def test_as_many_demonstrations_as_the_task_says(lm):
    task = dataclasses.replace(TASK, shots=3, choose="first")
    assert fitted(lm, task, seed=5, shots=-1).prompts.demonstrations == POOL[:3]
    drawn = dataclasses.replace(task, choose="random")
    same = fitted(lm, seed=5, shots=3, choose="random").prompts.demonstrations
    assert fitted(lm, drawn, seed=5, shots=-1).prompts.demonstrations == same != POOL[:3]
    assert common.prompted("task-shot").shots == -1


def test_the_channel_scores_the_prompt_behind_each_answer(lm):
    predictor = fitted(lm, shots=2, direction="channel")
    (s,) = predictor.predict(TEST[:1], Meter())[""]
    head = "".join(f"{e.answer}\n{e.prompt};" for e in predictor.prompts.demonstrations)
    expected = [logprob(lm, f"{head}{c}\n", TEST[0].prompt) for c in CHOICES]
    np.testing.assert_allclose(s, expected, atol=1e-4)
    prefilled = lm.text.decode(predictor.prefix_ids)
    assert head.startswith(prefilled) and len(prefilled) > len(head) / 2


def test_orders_of_a_draw_are_runs_of_their_own(lm):
    arm = InContext(shots=4, readings=(), orders=3)
    runs = arm.runs((0,), (0, 1))
    assert [tuple(arm.details(run).values()) for run in runs] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    sets = [arm.fit(lm, TASK, DATA, run, Log()).prompts.demonstrations for run in runs[:3]]
    assert len(set(sets)) == 3 and len({frozenset(one) for one in sets}) == 1
    assert InContext(shots=4, choose="nearest").runs((0,), (0, 1)) == [0]


def test_the_best_order_is_the_one_with_the_best_development_score(lm):
    predictor = fitted(lm, shots=4, order="best", orders=5)
    scores = {}
    arm = InContext(shots=4, readings=(), orders=5)
    for run in arm.runs((0,), (0,)):
        tried = arm.fit(lm, TASK, Labelled(DATA.train, ()), run, Log())
        found = tried.predict(DATA.dev, Meter())[""]
        right = [int(np.argmax(s)) == e.target for s, e in zip(found, DATA.dev, strict=True)]
        pairs = zip(found, DATA.dev, strict=True)
        likely = [s[e.target] - np.logaddexp.reduce(s) for s, e in pairs]
        scores[tried.prompts.demonstrations] = np.mean(right), np.mean(likely)
    assert predictor.prompts.demonstrations == max(scores, key=scores.get)
    assert predictor.cost.examples == 4 + len(DATA.dev)


def test_a_curriculum_begins_with_what_the_model_finds_likely(lm):
    demonstrations = fitted(lm, shots=5, order="curriculum").prompts.demonstrations
    likely = []
    for e in demonstrations:
        s = np.array([logprob(lm, e.prompt, f" {c}") for c in CHOICES])
        likely.append(s[e.target] - np.logaddexp.reduce(s))
    assert likely == sorted(likely, reverse=True)


def fake_embeddings(source, texts, meter=None):
    """Texts near where their last number is."""
    angles = [int(t.rstrip("?").split()[-1]) / 10 for t in texts]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def use(monkeypatch, embeddings):
    for module in ("demonstrations", "in_context"):
        monkeypatch.setattr(f"lmlite.arms.{module}.embedded", embeddings)
    monkeypatch.setattr("lmlite.arms.in_context.encoder", lambda source: None)


def test_nearest_demonstrations_of_each_query(lm, monkeypatch):
    use(monkeypatch, fake_embeddings)
    predictor = fitted(lm, shots=2, choose="nearest", order="similar")
    texts = predictor.prompts([POOL[3], TEST[0]])
    near = [POOL[i] for i in (2, 4)]  # its neighbours, and never itself
    assert sorted(map(shown, near)) == sorted(f"{part};" for part in texts[0].split(";")[:-1])
    assert texts[1] == shown(POOL[10]) + shown(POOL[11]) + TEST[0].prompt  # the nearest last
    found = predictor.predict(TEST[:2], Meter())[""]
    for text, s in zip(predictor.prompts(TEST[:2]), found, strict=True):
        np.testing.assert_allclose(s, [logprob(lm, text, f" {c}") for c in CHOICES], atol=1e-4)


def test_a_query_is_not_shown_its_like(lm, monkeypatch):
    """Repeated rows have other ids; rows of another file may have the same."""
    use(monkeypatch, fake_embeddings)
    repeated = tuple(dataclasses.replace(POOL[3], id=f"again {i}") for i in range(3))
    data = Labelled((*POOL, *repeated), ())
    arm = InContext(shots=2, choose="nearest", order="similar", readings=())
    (text,) = arm.fit(lm, TASK, data, 0, Log()).prompts([POOL[3]])
    near = [POOL[i] for i in (2, 4)]
    assert sorted(map(shown, near)) == sorted(f"{part};" for part in text.split(";")[:-1])
    other = dataclasses.replace(TEST[0], id=POOL[11].id)
    assert shown(POOL[11]) in arm.fit(lm, TASK, data, 0, Log()).prompts([other])[0]


def test_nearest_has_no_prompt_without_content(lm, monkeypatch):
    use(monkeypatch, fake_embeddings)
    readings = ("contextual", "domain", "batch")
    found = fitted(lm, shots=2, choose="nearest", readings=readings).predict(TEST, Meter())
    assert set(found) == {"", "batch"}


@pytest.mark.parametrize("choose", ["nearest", "diverse"])
def test_finding_demonstrations_is_counted_like_other_work(choose, lm, monkeypatch):
    """The pool's embeddings in fitting, a query's in answering, and what must be kept."""
    own = tiny_encoder()
    monkeypatch.setattr("lmlite.icl.retrieve.encoder", lambda source: own)
    monkeypatch.setattr("lmlite.arms.in_context.encoder", lambda source: own)
    plain, found = fitted(lm, shots=2), fitted(lm, shots=2, choose=choose)
    asked = [Meter(), Meter()]
    for predictor, meter in zip((plain, found), asked, strict=True):
        predictor.prompts(TEST, meter)
    assert not asked[0].flops
    if choose == "diverse":
        assert found.cost.train_flops > 1.1 * plain.cost.train_flops and not asked[1].flops
    else:
        texts = sum(len(e.prompt + e.answer) for e in POOL)
        assert found.cost.stored_bytes == texts + 4 * own.config.width * len(POOL)
        assert found.cost.train_flops > 0 and asked[1].flops > 0


def test_the_channel_needs_a_prompt(lm):
    empty = dataclasses.replace(TEST[0], prompt=" ")
    with pytest.raises(UserError, match=f"that of {empty.id} is empty; leave the row out"):
        fitted(lm, shots=0, direction="channel", readings=()).predict([empty], Meter())


def test_the_first_of_a_file_are_its_first(lm):
    """Whichever are labelled: as lm_eval has first_n."""
    task = dataclasses.replace(TASK, shots=2, choose="first")
    predictor = InContext(-1, readings=()).fit(lm, task, Labelled(POOL[5:9], ()), 0, Log())
    assert predictor.prompts(TEST[:1])[0].startswith(shown(POOL[0]) + shown(POOL[1]))
    assert predictor.cost.examples == 2


def test_answers_are_written_after_the_whole_prompt(lm):
    """Its last spaces and line breaks too, in context and in training."""
    generation = Generation(max_new_tokens=3, stop=("#",))
    asked = tuple(dataclasses.replace(example(i, ()), prompt=f"Q{i}\nA: \n") for i in range(8))
    task = Task("t", (), asked, (), asked, generation=generation, target_delimiter="")
    predictor = InContext(0, readings=()).fit(lm, task, Labelled(asked, ()), 0, Log())
    whole = lm.generate([e.prompt for e in asked], max_new_tokens=3, stop=("#",))
    assert predictor.write(asked, Meter(), 0) == [[text] for text in whole]
    for e, own in zip(asked, encode_examples(lm, task, asked), strict=True):
        assert own.context == lm.text.encode(e.prompt)
        assert own.context + own.choices[0] == lm.text.encode(e.prompt + "so")


def test_diversity_and_k_means_leave_repeats_out():
    angles = np.array([0.0, 0.01, 0.02, 1.0, 2.0])
    pool = np.stack([np.cos(angles), np.sin(angles)], 1)
    query = np.array([[1.0, 0.0]])
    assert retrieve.nearest(query, pool, 3).tolist() == [[0, 1, 2]]
    assert retrieve.nearest(query, pool, 3, diversity=0.6)[0].tolist()[1] in (3, 4)
    for seed in range(5):
        chosen = retrieve.spread_out(pool, 3, seed)
        assert len(set(chosen)) == 3 and {3, 4} <= set(chosen)


def test_readings_by_hand(lm):
    task = dataclasses.replace(TASK, premise="\nSo?")
    predictor = fitted(lm, task, readings=("length", "bytes", "pmi", "contextual", "batch"))
    found = predictor.predict(TEST, Meter())
    raw = np.stack(found[""])
    tokens = np.array([3, 4])  # " no" and " yes", a token a byte
    np.testing.assert_allclose(np.stack(found["length"]), raw / tokens)
    np.testing.assert_allclose(np.stack(found["bytes"]), raw / np.array([2, 3]))
    prior = np.array([logprob(lm, "So?", f" {c}") for c in CHOICES])
    np.testing.assert_allclose(np.stack(found["pmi"]), raw - prior, atol=1e-4)
    free = [[logprob(lm, p, f" {c}") for c in CHOICES] for p in task.content_free]
    expected = calibrate.contextual(raw, np.array(free))
    np.testing.assert_allclose(np.stack(found["contextual"]), expected, atol=1e-4)


def test_what_readings_ask_fills_up_the_same_batch(lm, monkeypatch):
    predictor = fitted(lm, shots=2, readings=("contextual", "domain", "batch"))
    asked, program = [], score._score
    monkeypatch.setattr(score, "_score", lambda *a: asked.append(a[4]) or program(*a))
    assert len(predictor.predict(TEST, Meter())) == 4
    assert len(asked) == 1


def test_domain_texts_are_words_of_the_training_prompts(lm):
    from lmlite.icl.readings import _domain_texts

    texts = _domain_texts(TASK)
    words = {word for e in POOL for word in e.prompt.removesuffix("?").split()}
    assert len(set(texts)) > 10 and texts == _domain_texts(TASK)
    assert all(set(text.removesuffix("?").split()) <= words for text in texts)


def test_domain_texts_of_a_script_without_spaces(lm):
    """Characters of the reviews, without the template that stands around each."""
    from lmlite.icl.readings import _domain_texts

    frame = "评论：{}\n情感：".format
    train = tuple(dataclasses.replace(e, prompt=frame("这家餐厅很好吃" * 3)) for e in POOL)
    task = dataclasses.replace(TASK, train=train, frame=frame)
    texts = _domain_texts(task)
    assert len(set(texts)) > 10
    assert all(len(t) == len(train[0].prompt) and t.count("评论：") == 1 for t in texts)
    assert all(set(t) <= set(train[0].prompt) for t in texts)
    nothing = dataclasses.replace(task, train=(dataclasses.replace(POOL[0], prompt=frame("")),))
    with pytest.raises(UserError, match="finds no words of their own"):
        _domain_texts(nothing)


def test_readings_that_have_no_meaning_are_left_out(lm):
    own = [dataclasses.replace(e, choices=(*CHOICES, e.id)) for e in TEST]
    found = fitted(lm, readings=("contextual", "domain", "pmi")).predict(own, Meter())
    assert set(found) == {"", "pmi"}


def test_answers_are_written_behind_prefilled_demonstrations(lm):
    """As with the whole prompt read anew."""
    generation = Generation(max_new_tokens=6, stop=("\n",))
    pool = tuple(example(i, ()) for i in range(8))
    task = Task("t", (), pool, (), pool, fewshot_delimiter=";", generation=generation)
    predictor = InContext(3, readings=()).fit(lm, task, Labelled(pool[:6], ()), 0, Log())
    assert len(predictor.prefix_ids) > 10
    asked = pool[6:]
    whole = lm.generate(predictor.prompts(asked), max_new_tokens=6, stop=("\n",))
    assert predictor.write(asked, Meter(), 0) == [[text] for text in whole]
    longer = InContext(4, readings=()).fit(lm, task, Labelled(pool[:6], ()), 1, Log())
    meter = Meter()
    assert len(longer.prefix_ids) > len(predictor.prefix_ids)
    whole = lm.generate(longer.prompts(asked), max_new_tokens=6, stop=("\n",))
    assert longer.write(asked, meter, 0) == [[text] for text in whole]
    assert meter.compile_seconds == 0


def test_written_answers_need_room_after_the_demonstrations(lm):
    pool = tuple(example(i, ()) for i in range(8))
    task = Task("t", (), pool, (), pool, generation=Generation(max_new_tokens=1000))
    predictor = InContext(3, readings=()).fit(lm, task, Labelled(pool[:6], ()), 0, Log())
    before = len(predictor.prefix_ids)
    told = rf"{before} of them before.*max_new_tokens=1000 .*context of 1024; use fewer"
    with pytest.raises(UserError, match=told):
        predictor.write(pool[6:], Meter(), 0)


def test_votes_and_extraction():
    digit = Generation(extract=r"(\d)")
    assert write.voted(["so 3.", "so 4.", "is 4 now", ""], digit) == "4"
    assert write.voted(["none", "nor"], digit) == ""
    assert write.extracted("a 1 b 2", r"(\d)") == "2"
    assert [write.expected(text, digit) for text in ("7+1 is 8", "eight")] == ["8", "eight"]
    alone = dataclasses.replace(digit, extract_right=False)  # of lm_eval's files
    assert write.expected("7+1 is 8", alone) == "7+1 is 8"
    commas = Generation(ignore=(",",), ignore_case=True)
    assert write.voted(["1,000 A", "1000 a", "7", "7"], commas) == "1,000 A"  # two votes, and first
    with pytest.raises(UserError, match="generation.extract='x' is no regex with a group"):
        write.extracted("x", "x")


def test_samples_need_a_temperature(lm):
    task = dataclasses.replace(TASK, generation=Generation(4, samples=3))
    with pytest.raises(UserError, match="generation.samples=3 texts would be the same"):
        fitted(lm, task).write(TEST, Meter(), 0)


def test_variance_components_by_simulation():
    rng = np.random.default_rng(0)
    found = [
        components(rng.normal(0, 2, (6, 1)) + rng.normal(0, 1, (6, 4))) for _ in range(2000)
    ]
    draws, orders = np.mean(found, axis=0)
    assert orders == pytest.approx(1.0, rel=0.05) and draws == pytest.approx(4.0, rel=0.06)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(choose="best"), "choose='best' is unknown"),
        (dict(order="similar"), "order='similar' is for choose='nearest'"),
        (dict(direction="channel", readings=("batch",)), "has no other readings"),
        (dict(choose="nearest", order="best"), "order='best' .* need the same demonstrations"),
        (dict(choose="nearest", order="curriculum"), "order='curriculum' .* need the same"),
        (dict(choose="nearest", orders=3), "orders=3 need the same demonstrations"),
        (dict(choose="nearest", direction="channel", readings=()), "shows the same to all"),
        (dict(shots=-2), "shots=-2"),
        (dict(readings=("magic",)), "reading 'magic' is unknown; known: length"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(UserError, match=message):
        InContext(**fields)


def test_too_many_shots(lm):
    with pytest.raises(UserError, match="shots=13 of 12 labelled examples"):
        fitted(lm, shots=13)
