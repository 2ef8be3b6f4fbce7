"""Pretraining: objectives, tokenizers and perplexity by hand, resuming, devices, the command."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import lmlite
from configs.pretrain import get_config
from lmlite import tree
from lmlite.errors import UserError
from lmlite.pretrain import corpus, vocabulary
from lmlite.pretrain.command import measures, pretrain
from lmlite.pretrain.loss import held_out_loss
from lmlite.pretrain.model import build_objective, end_id, random_model, sentinels_needed
from lmlite.pretrain.objectives import Causal, Masked, Spans, span_counts
from lmlite.pretrain.training import Settings, fit
from lmlite.runtime import Meter

TEXT = "".join(f"the {a} saw the {b}; " for a in ("cat", "dog", "cow") for b in ("sun", "sea")) * 6
SMALL = {
    "gpt2": dict(n_embd=16, n_layer=1, n_head=2),
    "lstm": dict(hidden_size=16, embedding_size=16, num_hidden_layers=1),
    "bert": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
    "t5": dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
}


def config_of(model="gpt2", **fields) -> ConfigDict:
    config = get_config("text:none", model, 16)
    with config.unlocked():
        config.update({"model": SMALL[model], "batch_size": 8, "steps": 6, "eval_every": 2})
        config.update(fields)
    return config


def pieces(config, documents=(TEXT,)):
    """(model, objective, stream) of a config, on these documents."""
    sentinels = sentinels_needed(config.objective, config.length)
    kind, size = config.tokenizer.kind, config.tokenizer.vocab_size
    tokenizer = vocabulary.train(documents, kind, size, config.objective.kind, sentinels)
    lm = random_model(config, tokenizer)
    stream = corpus.encode(tokenizer, documents, end_id(tokenizer))
    return lm, build_objective(config, lm), stream


def settings_of(config, **fields) -> Settings:
    optim = config.optim.to_dict()
    made = Settings(config.steps, config.batch_size, config.eval_every, config.seed, optim)
    return dataclasses.replace(made, **fields)


# Objectives ------------------------------------------------------------------------------------


def test_causal_rows_predict_within_documents():
    ids = np.array([[10, 11, 12, 20, 21, 30, 31, 32, 99]])
    document = np.array([[3, 3, 3, 4, 4, 5, 5, 5, -1]])
    rows = Causal(8).rows(ids, document, np.random.default_rng(0))
    np.testing.assert_array_equal(rows.inputs.ids, ids[:, :-1])
    np.testing.assert_array_equal(rows.inputs.segment, [[1, 1, 1, 2, 2, 3, 3, 3]])
    np.testing.assert_array_equal(rows.inputs.position, [[0, 1, 2, 0, 1, 0, 1, 2]])
    np.testing.assert_array_equal(rows.targets, ids[:, 1:])
    np.testing.assert_array_equal(rows.weights, [[1, 1, 0, 1, 0, 1, 1, 0]])


def test_held_out_windows_predict_every_token_once():
    for n in (2, 16, 17, 18, 40):
        stream = corpus.Stream(np.arange(n, dtype=np.int32), np.zeros(n, np.int32))
        objective = Causal(16)
        rows = objective.rows(*stream.windows(objective.starts(n), 17), None)
        predicted = rows.targets[rows.weights > 0]
        np.testing.assert_array_equal(predicted, np.arange(1, n))


def masked_rows(R=400, length=42, rate=0.15):
    objective = Masked(length, rate, 1000, special=5, start_id=1, end_id=2, mask_id=3)
    draw = np.random.default_rng(0)
    ids = draw.integers(5, 1000, (R, length - 2))
    ids[:, ::7] = 2  # separators inside the window
    document = np.zeros_like(ids)
    return ids, objective.rows(ids, document, np.random.default_rng(1))


def test_masked_rows_hide_their_share_in_three_ways():
    ids, rows = masked_rows()
    true = np.concatenate([np.full((400, 1), 1), ids, np.full((400, 1), 2)], axis=1)
    chosen = np.zeros(true.shape, bool)
    np.put_along_axis(chosen, rows.reads, True, axis=1)
    assert np.all(chosen.sum(1) == round(0.15 * 40)) and np.all(rows.weights == 1)
    np.testing.assert_array_equal(rows.targets, np.take_along_axis(true, rows.reads, axis=1))
    np.testing.assert_array_equal(rows.inputs.ids[~chosen], true[~chosen])
    assert np.all(true[chosen] >= 5)
    shown = rows.inputs.ids[chosen]
    share = np.mean(shown == 3), np.mean(shown == true[chosen])
    np.testing.assert_allclose(share, (0.8, 0.1), atol=0.025)
    assert np.all(shown[shown != 3] >= 5)


def test_masked_rows_without_enough_ordinary_tokens_predict_what_there_is():
    objective = Masked(10, 0.5, 100, special=5, start_id=1, end_id=2, mask_id=3)
    ids = np.full((1, 8), 4)
    ids[0, 3] = 50
    rows = objective.rows(ids, np.zeros((1, 8), int), np.random.default_rng(0))
    assert rows.weights.sum() == 1 and rows.targets[rows.weights > 0] == [50]
    np.testing.assert_array_equal(np.delete(rows.inputs.ids[0], 4), [1, 4, 4, 4, 4, 4, 4, 4, 2])


@pytest.mark.parametrize("length, rate, span", [(64, 0.15, 3.0), (16, 0.5, 2.0), (3, 0.15, 3.0)])
def test_span_corruption_loses_nothing(length, rate, span):
    window, lost, spans = span_counts(length, rate, span)
    sentinels = tuple(range(900, 900 + spans))
    objective = Spans(length, rate, span, sentinels, start_id=0, end_id=1)
    ids = np.random.default_rng(0).integers(5, 900, (50, window))
    rows = objective.rows(ids, np.zeros_like(ids), np.random.default_rng(1))
    source, target = rows.source.ids, rows.targets
    assert source.shape[1] == window - lost + spans + 1 <= max(length, 3)
    assert target.shape[1] == lost + spans + 1
    assert np.all(rows.inputs.ids[:, 0] == 0)
    np.testing.assert_array_equal(rows.inputs.ids[:, 1:], target[:, :-1])
    assert np.all(source[:, -1] == 1) and np.all(target[:, -1] == 1)
    for whole, given, answer in zip(ids, source, target, strict=True):
        spans_of, newest = {}, None
        for token in answer[:-1]:
            if token in sentinels:
                newest = spans_of.setdefault(token, [])
            else:
                newest.append(token)
        assert list(spans_of) == list(sentinels) and all(spans_of.values())
        restored = [t for token in given[:-1] for t in spans_of.get(token, [token])]
        assert restored == list(whole)
    assert len({tuple(row) for row in source == 900}) > 2 or window < 8  # places are drawn


def test_the_longest_window_fills_the_source():
    window, lost, spans = span_counts(512, 0.15, 3.0)
    assert (window, lost, spans) == (568, 85, 28)  # the T5 code base's numbers for 512 inputs


# Text and tokenizers -----------------------------------------------------------------------------


def test_the_end_of_the_text_is_held_out(tmp_path):
    for name, text in (("a", "x" * 50), ("b", "y" * 30), ("c", "z" * 20)):
        (tmp_path / f"{name}.txt").write_text(text)
    data = dict(source=f"text:{tmp_path}", column="text", held_out_source="", held_out=0.3)
    found = corpus.texts(ConfigDict(data))
    assert found == (("x" * 50, "y" * 20), ("y" * 10, "z" * 20))
    other = f"text:{tmp_path / 'c.txt'}"
    found = corpus.texts(ConfigDict(data | {"held_out_source": other}))
    assert len(found.train) == 3 and found.held_out == ("z" * 20,)
    for change, words in (
        ({"column": "txet"}, "data.column='txet' is not in .*nearest is 'text'"),
        ({"held_out": 1.0}, "data.held_out=1.0 must lie between 0 and 1"),
        ({"source": "text:nowhere.txt"}, "cannot read nowhere.txt"),
    ):
        with pytest.raises(UserError, match=words):
            corpus.texts(ConfigDict(data | change))


def test_documents_end_in_the_stream():
    tokenizer = vocabulary.train(("ab", "c"), "characters", 0, "causal")
    stream = corpus.encode(tokenizer, ("ab", "c"), tokenizer.eos_id)
    assert tokenizer.decode(stream.ids, False) == "ab<|endoftext|>c<|endoftext|>"
    np.testing.assert_array_equal(stream.document, [0, 0, 0, 1, 1])
    ids, document = stream.windows(np.array([3, 5]), 3)
    np.testing.assert_array_equal(document, [[1, 1, -1], [-1, -1, -1]])


@pytest.mark.parametrize("kind", ["characters", "bpe", "unigram"])
@pytest.mark.parametrize("objective", ["causal", "masked", "spans"])
def test_tokenizers_give_every_text_back(kind, objective, tmp_path):
    tokenizer = vocabulary.train((TEXT, "é\n\t  x"), kind, 300, objective, sentinels=3)
    text = "the é\n\t  cow" + ("" if kind == "characters" else " 日本")
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids) == text
    special = [t for name, t in tokenizer.config.items() if name.endswith("_token")]
    assert sorted(tokenizer.backend.token_to_id(t) for t in special) == list(range(len(special)))
    around = tokenizer.encode(text)
    assert len(around) - len(ids) == {"causal": 0, "masked": 2, "spans": 1}[objective]
    assert tokenizer.vocab_size <= 300


def test_tokenizer_errors():
    with pytest.raises(UserError, match="kind='bytes' is unknown; known: characters, words, bpe"):
        vocabulary.train((TEXT,), "bytes", 300, "causal")
    with pytest.raises(UserError, match="vocab_size=100 is too small for kind 'bpe'; it needs 257"):
        vocabulary.train((TEXT,), "bpe", 100, "causal")


# Training ----------------------------------------------------------------------------------------


def test_perplexity_is_the_mean_of_token_losses():
    config = config_of()
    lm, objective, stream = pieces(config, (TEXT[:37], TEXT[40:91]))
    found, count = held_out_loss(lm.network, lm.params, objective, stream, 4, 0, Meter())
    losses = []
    for start in range(0, len(stream.ids) - 1, 16):  # each window, document by document
        ids, document = stream.ids[start : start + 17], stream.document[start : start + 17]
        for d in np.unique(document):
            part = ids[document == d]
            if len(part) > 1:
                logp = jax.nn.log_softmax(lm.logits([part[:-1]])[0])
                losses += list(-np.asarray(logp)[np.arange(len(part) - 1), part[1:]])
    # The first token of a document is never a target, nor a window's first of a later document.
    assert count == len(losses)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    made = measures(found, "causal", "characters", stream, (TEXT[:37], TEXT[40:91]))
    np.testing.assert_allclose(made["perplexity"], np.exp(np.mean(losses)), rtol=1e-5)
    per_byte = found * len(stream.ids) / (37 + 51) / np.log(2)
    np.testing.assert_allclose(made["bits_per_byte"], per_byte, rtol=1e-6)
    assert "bits_per_byte" not in measures(found, "masked", "bpe", stream, ("",))


@pytest.mark.parametrize("model", SMALL)
def test_every_role_learns_and_is_saved(model, tmp_path):
    config = config_of(model, steps=40, eval_every=20)
    lm, objective, stream = pieces(config)
    steps = []
    optim = config.optim.to_dict() | {"learning_rate": 1e-2}
    trained = fit(
        lm, objective, stream, stream, settings_of(config, optim=optim), Meter(), None,
        lambda step, values: steps.append(step),
    )  # fmt: skip
    before, _ = held_out_loss(lm.network, lm.params, objective, stream, 8, 0, Meter())
    assert trained.history[-1, 3] < trained.history[0, 3] < before
    assert steps == [20, 40] and list(trained.history[:, 0]) == steps
    params = jax.tree.map(jnp.asarray, trained.last)
    moved = dataclasses.replace(lm, params=params)
    moved.save(tmp_path)
    again = lmlite.load(tmp_path)
    assert again.config == lm.config
    for path, leaf in tree.flatten(params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(again.params)[path])
    assert again.text.encode("the cat") == lm.text.encode("the cat")


class Killed(Exception):
    pass


def test_interrupted_and_resumed_is_bit_equal(tmp_path):
    config = config_of("lstm", steps=5)
    lm, objective, stream = pieces(config)

    def train(folder, log=lambda step, values: None):
        settings = settings_of(config)
        return fit(lm, objective, stream, stream, settings, Meter(), tmp_path / folder, log)

    def kill(step, values):
        if step == 4:  # after the second reading, before its checkpoint
            raise Killed

    whole = train("a")
    assert list(whole.history[:, 0]) == [2, 4, 5]
    with pytest.raises(Killed):
        train("b", kill)
    resumed = train("b")
    np.testing.assert_array_equal(whole.history, resumed.history)
    for name in ("best", "last"):
        for path, leaf in tree.flatten(getattr(whole, name)).items():
            np.testing.assert_array_equal(leaf, tree.flatten(getattr(resumed, name))[path])
    assert resumed.flops == whole.flops


def test_word_vectors_start_the_token_table(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat " + " ".join(["1.5"] * 16) + "\nsun " + " ".join(["-0.5"] * 16) + "\n")
    config = config_of("lstm", word_vectors=str(path))
    with config.unlocked():
        config.tokenizer.kind = "words"
    lm, _, stream = pieces(config)
    table = np.asarray(lm.params["embed"]["embedding"])
    for word, value in (("cat", 1.5), ("sun", -0.5)):
        assert np.all(table[lm.text.encode(word)[0]] == value)
    assert np.std(table[lm.text.encode("dog")[0]]) > 0.5
    assert "bits_per_byte" not in measures(1.0, "causal", "words", stream, (TEXT,))


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(objective=dict(kind="masked")), "kind='masked' does not train a gpt2 model; use 'ca"),
        (dict(objective=dict(kind="maskd")), "kind='maskd' is unknown; known: causal, masked, sp"),
        (dict(length=17), "length=17 is longer than the model's context of 16"),
        (dict(length=0), "length=0 is too short for 'causal'; it needs at least 1"),
        (dict(model=dict(n_layer="x", model_type="gtp2")), "model_type 'gtp2' is not known"),
        (dict(word_vectors="nowhere.bin"), "word_vectors=nowhere.bin cannot be read"),
    ],
)
def test_settings_that_do_not_fit(fields, words):
    config = config_of()
    with config.unlocked(), config.model.ignore_type():
        config.update(fields)
    with pytest.raises(UserError, match=words):
        pieces(config)


def test_rates_and_spans_that_do_not_fit():
    for fields, words in (({"rate": 1.0}, "rate=1.0 must lie"), ({"span": 0.5}, "span=0.5 tokens")):
        objective = ConfigDict(dict(kind="spans", rate=0.15, span=3.0) | fields)
        with pytest.raises(UserError, match=f"objective.{words}"):
            sentinels_needed(objective, 16)


def test_text_and_steps_that_do_not_fit():
    config = config_of()
    lm, objective, stream = pieces(config)
    for fields, words in (
        (dict(steps=0), "steps=0 must be a whole number of at least 1"),
        (dict(eval_every=0), "eval_every=0 must be a whole number of at least 1"),
        (dict(batch_size=0), "batch_size=0 rows do not divide over 1 devices; use 1"),
    ):
        with pytest.raises(UserError, match=words):
            fit(lm, objective, stream, stream, settings_of(config, **fields), Meter())
    short = corpus.Stream(stream.ids[:10], stream.document[:10])
    with pytest.raises(UserError, match="held-out text has 10 tokens and a row takes 17"):
        fit(lm, objective, stream, short, settings_of(config), Meter())


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(seed=-1), "seed=-1 must be a whole number of at least 0"),
        (dict(optim=dict(accumulate=7)), "optim.accumulate=7 is more than the 6 steps"),
        (dict(optim=dict(accumulate=0)), "optim.accumulate=0 must be a whole number of at least 1"),
    ],
)
def test_what_cannot_train_is_told_before_the_text_is_read(tmp_path, fields, words):
    with pytest.raises(UserError, match=words):
        pretrain(config_of(**fields), tmp_path)


# The command -------------------------------------------------------------------------------------


def rows_of(workdir) -> dict[str, dict]:
    lines = (workdir / "results.jsonl").read_text().splitlines()
    return {row["metric"]: row for row in map(json.loads, lines)}


def test_the_command_on_one_device_and_on_eight(run_python, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    sizes = [f"--config.model.{name}={value}" for name, value in SMALL["gpt2"].items()]
    flags = [
        "-m", "experiments.pretrain", "--config=configs/pretrain.py:source=text:text.txt,length=16",
        "--config.steps=6", "--config.eval_every=3", "--config.batch_size=8", *sizes,
    ]  # fmt: skip
    one = run_python(*flags, "--workdir=one")
    assert one.returncode == 0, one.stderr
    eight = run_python(
        *flags, "--workdir=eight", XLA_FLAGS="--xla_force_host_platform_device_count=8"
    )
    assert eight.returncode == 0, eight.stderr
    rows, parallel = rows_of(tmp_path / "one"), rows_of(tmp_path / "eight")
    assert rows.keys() == {"loss", "perplexity", "bits_per_byte", "character_perplexity"}
    for metric, row in rows.items():
        np.testing.assert_allclose(row["value"], parallel[metric]["value"], rtol=1e-5)
    record = json.loads((tmp_path / "eight" / "config.json").read_text())
    assert len(record["devices"]) == 8
    for name in ("best", "last"):
        one_lm, other = (lmlite.load(tmp_path / w / "model" / name) for w in ("one", "eight"))
        for path, leaf in tree.flatten(one_lm.params).items():
            np.testing.assert_allclose(leaf, tree.flatten(other.params)[path], atol=1e-4)
    report = (tmp_path / "one" / "report.md").read_text()
    assert "(loss.png)" in report and f"{rows['loss']['value']:.4f}" in report
    assert (tmp_path / "one" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "one" / "tb" / "causal").iterdir())
    assert list((tmp_path / "one" / "checkpoints").iterdir())
