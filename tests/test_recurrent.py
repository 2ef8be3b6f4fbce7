"""Recurrent models: PyTorch's equations, rows that hold several sequences, files, every arm."""

import gzip
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import REFERENCES, tensor
from safetensors.numpy import load_file
from tiny_lm import byte_tokenizer, write_task

import lmlite
from lmlite import tree
from lmlite.adapt import METHODS, attach
from lmlite.data.item import choice_item
from lmlite.decode import generate
from lmlite.errors import UserError
from lmlite.icl.score import prefill, score
from lmlite.models import word_vectors
from lmlite.models.build import build
from lmlite.models.config import RecurrentConfig
from lmlite.models.lm import LM
from lmlite.models.recurrent import Recurrent
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, stream

CELLS = ("lstm", "gru")


def tiny(cell: str, **fields) -> LM:
    sizes = dict(vocab_size=256, width=16, embed_width=12, layers=2, cell=cell, eos_ids=(0,))
    config = RecurrentConfig(**{**sizes, **fields})
    module = build(config)
    ids = jnp.zeros((1, 1), jnp.int32)
    params = module.init(jax.random.key(0), ids, Tokens(ids, ids + 1, ids))["params"]
    params = jax.tree.map(lambda x: 4 * x if x.ndim == 2 else x + 0.1, params)
    return LM(module, params, config, byte_tokenizer(), "tiny")


@pytest.fixture(scope="module", params=CELLS)
def lm(request):
    return tiny(request.param)


def test_cells_compute_what_pytorch_computes():
    """Stored by references/make_recurrent.py."""
    reference = np.load(REFERENCES / "recurrent.npz")
    for cell in CELLS:
        gates = 4 if cell == "lstm" else 3
        config = RecurrentConfig(vocab_size=5, width=8, embed_width=6, layers=2, cell=cell)
        params = {}
        for i, width in enumerate((6, 8)):
            for name, ours, inputs in (("ih", "input", width), ("hh", "state", 8)):
                kernel = tensor(f"{cell}.weight_{name}_l{i}", [gates * 8, inputs]).T
                bias = tensor(f"{cell}.bias_{name}_l{i}", [gates * 8])
                params.setdefault(f"layers_{i}", {})[ours] = {"kernel": kernel, "bias": bias}
        x = tensor("input", [2, 12, 6])
        tokens = Tokens.from_mask(jnp.ones((2, 12), bool))
        found, _ = Recurrent(config).apply({"params": params}, x, tokens, method="trunk")
        np.testing.assert_allclose(found, reference[cell], atol=1e-5)


def test_padding_stands_on_any_side(lm):
    ids = np.array([[5, 6, 7, 8]])
    alone = lm.logits(ids)
    for mask in ([0, 0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0, 1]):
        padded = np.full((1, 7), 99)
        padded[0, np.flatnonzero(mask)] = ids[0]
        found = lm.logits(padded, np.array([mask]))[:, np.flatnonzero(mask)]
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_packed_choices_equal_single_sequences(lm):
    """Three queries in a row, with two answers of three tokens each."""
    draw = np.random.default_rng(0)
    queries = [list(draw.integers(1, 256, n)) for n in (3, 7, 5)]
    choices = [[11, 12, 13], [14, 15, 16]]
    items = [choice_item(query, choices) for query in queries]
    found = score(lm.network, lm.params, items, 1024, Meter())
    for query, scores in zip(queries, found, strict=True):
        for choice, value in zip(choices, scores, strict=True):
            padded = [query + choice + [0] * (10 - len(query) - len(choice))]
            logp = jax.nn.log_softmax(lm.logits(padded)[0])
            at = range(len(query) - 1, len(query) + len(choice) - 1)
            expected = sum(float(logp[i, token]) for i, token in zip(at, choice, strict=True))
            np.testing.assert_allclose(value, expected, atol=1e-4)


def test_a_prefix_is_the_state_after_it(lm):
    before, query, choice = [9, 8, 7, 6], [5, 4], [[3, 2], [1]]
    prefix = prefill(lm.network, lm.params, before, 1024, Meter())
    after = [choice_item(query, choice, offset=4)]
    shared = score(lm.network, lm.params, after, 1024, Meter(), prefix)
    whole = score(lm.network, lm.params, [choice_item(before + query, choice)], 1024, Meter())
    np.testing.assert_allclose(shared[0], whole[0], atol=1e-4)
    assert tree.size_bytes(prefix) == 4 * 16 * 2 * len(prefix[0][0])


def test_generation_equals_a_forward_pass(lm):
    prompts = [[5, 6, 7], [50]]
    for prompt, made in zip(prompts, generate(lm, prompts, max_new_tokens=6), strict=True):
        ids = np.array([[*prompt, *made.ids]])
        padded = np.zeros((1, 9), int)
        padded[:, : ids.shape[1]] = ids
        best = jnp.argmax(lm.logits(padded)[0], -1)[len(prompt) - 1 : ids.shape[1] - 1]
        np.testing.assert_array_equal(best, made.ids)
        assert len(made.ids) == 6 or made.ids[-1] == 0
    beams = generate(lm, prompts, max_new_tokens=4, beams=3)
    assert all(one.ids for one in beams)


def test_the_future_is_not_seen(lm):
    x = lm.network.bottom(lm.params, jnp.array([[1, 2, 3, 4]]), _ones(4))

    def third(x):
        return jnp.sum(lm.network.trunk(lm.params, x, _ones(4))[0, 2])

    moved = np.abs(jax.grad(third)(x)).sum(-1)[0]
    assert np.all(moved[:3] > 0) and moved[3] == 0


def _ones(n):
    return Tokens.from_mask(jnp.ones((1, n), bool))


@pytest.mark.parametrize("tied", [False, True])
def test_a_directory_holds_all_of_it(tmp_path, tied):
    lm = tiny("gru", tied=tied, embed_width=16, bos_id=3)
    lm.save(tmp_path)
    again = lmlite.load(tmp_path)
    assert again.config == lm.config and again.tokenizer.encode("ab") == lm.tokenizer.encode("ab")
    for path, leaf in tree.flatten(lm.params).items():
        np.testing.assert_array_equal(leaf, tree.flatten(again.params)[path])
    assert again.params.keys() == lm.params.keys()
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["layers.0.input.weight"].shape == (48, 16)  # as PyTorch's weight_ih_l0


def test_configurations_that_cannot_be():
    with pytest.raises(UserError, match="cell 'rnn' is unknown; known: lstm, gru"):
        tiny("rnn")
    with pytest.raises(UserError, match="tied head needs hidden_size 16 and embedding_size 12"):
        tiny("gru", tied=True)


def test_lora_trains_beside_both_products_and_folds(lm):
    method = METHODS["lora"](targets=r"layers_\d+/(input|state)", rank=2)
    adapted, labels = attach(method, lm, stream(0, "init"))
    assert sum(name != tree.FROZEN for name in labels.values()) == 8
    moved = jax.tree.map(lambda x: x + 0.05, adapted.params)
    params = tree.merge(adapted.params, {
        path: leaf for path, leaf in tree.flatten(moved).items() if labels[path] != tree.FROZEN
    })  # fmt: skip
    ids = jnp.array([[1, 2, 3]])
    with_hooks = adapted.network.readout(params, _states(adapted, params, ids))
    merged = method.merge(params)
    folded = lm.network.readout(merged, _states(lm, merged, ids))
    np.testing.assert_allclose(with_hooks, folded, atol=1e-4)
    assert np.abs(folded - lm.logits(ids)).max() > 1e-2


def _states(lm, params, ids):
    return lm.network.trunk(params, lm.network.bottom(params, ids, _ones(3)), _ones(3))


def test_methods_of_attention_are_refused(lm):
    for name in ("prefix_tuning", "prompt_tuning"):
        with pytest.raises(UserError, match="needs a transformer"):
            attach(METHODS[name](), lm, stream(0, "init"))
    with pytest.raises(UserError, match="match no module of this model"):
        attach(METHODS["lora"](targets=r"layers_\d+/attn/q"), lm, stream(0, "init"))


def test_it_takes_part_in_a_comparison(run_python, tmp_path):
    tiny("lstm").save(tmp_path / "model")
    write_task(tmp_path / "task.csv")
    arms = "4-shot,last-2-layers"
    done = run_python(
        "-m", "experiments.compare", "--workdir=out",
        f"--config=configs/compare.py:task=csv:task.csv,model=model,arms={arms}",
        "--config.task.labels=('bad','good')", "--config.task.choices=('bad','good')",
        "--config.examples=16", "--config.test_items=12", "--config.seeds=0", "--config.draws=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert {row["job"] for row in rows} == set(arms.split(","))


# Word vectors ----------------------------------------------------------------------------------

WORDS = {"the": [1.5, -2.0, 0.25], "été": [0.0, 1.0, 2.0], "x y": [3.0, 3.0, -3.0]}


def text(header=True, words=WORDS):
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in words.items()]
    return "\n".join([*([f"{len(words)} 3"] if header else []), *lines, ""]).encode()


def binary(newline=b"\n", words=WORDS):
    rows = [w.encode() + b" " + struct.pack("<3f", *v) + newline for w, v in words.items()]
    return b"%d 3\n" % len(words) + b"".join(rows)


SINGLE = {word: vector for word, vector in WORDS.items() if " " not in word}
FILES = {
    "word2vec text, as gensim writes it": (text(), WORDS),
    "word2vec text with blanks at line ends, as word2vec does": (
        text().replace(b"\n", b" \n").replace(b"3 3 \n", b"3 3\n"), WORDS,
    ),
    "word2vec binary, as word2vec writes it": (binary(words=SINGLE), SINGLE),
    "word2vec binary, as gensim does": (binary(b"", SINGLE), SINGLE),
    "GloVe": (text(header=False), WORDS),
    "GloVe, gzipped": (gzip.compress(text(header=False)), WORDS),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_word_vectors_of_every_format(tmp_path, kind):
    content, words = FILES[kind]
    path = tmp_path / ("vectors.gz" if "gzipped" in kind else "vectors")
    path.write_bytes(content)
    found = word_vectors.read(path)
    assert list(found.words) == list(words)
    np.testing.assert_array_equal(found.vectors, list(words.values()))


def test_of_a_repeated_word_the_first_counts_and_broken_ones_are_told(tmp_path):
    path = tmp_path / "vectors"
    path.write_bytes(b"3 1\na 1\na 2\n\xc3 3\n")
    found = word_vectors.read(path)
    assert found.words == {"a": 0, "\ufffd": 2}


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "cannot be read"),
        (b"", "is not a word and|holds no word vectors"),
        (b"4 3\n" + text(header=False), "holds 3 words and says 4"),
        (text() + b"odd 1 2\n", "entry 4 is not a word and 3 numbers"),
        (binary(words=SINGLE)[:-5], "ends at word 1 of 2"),
        (b"some text that is none\nof these\n", "is not a word and 4 numbers"),
    ],
)
def test_files_that_hold_no_word_vectors(tmp_path, content, words):
    path = tmp_path / "vectors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        word_vectors.read(path)


def test_a_table_starts_from_the_vectors_it_finds():
    table = jax.random.normal(jax.random.key(0), (256, 2))
    vectors = np.array([[3.0, 4.0], [-3.0, 1.0]], np.float32)
    found = word_vectors.WordVectors({"a": 0, "b": 1}, vectors)
    tokenizer = byte_tokenizer()
    filled = word_vectors.fill(table, tokenizer, found)
    for letters, row in (("aA", 0), ("bB", 1)):
        for letter in letters:
            np.testing.assert_array_equal(filled[tokenizer.encode(letter)[0]], vectors[row])
    other = tokenizer.encode("z")[0]
    ratio = np.asarray(filled[other] / table[other])
    np.testing.assert_allclose(ratio, vectors[[0, 0, 1, 1]].std() / table.std(), rtol=1e-5)
    with pytest.raises(UserError, match="have 2 elements.*embedding 3.*embedding_size to 2"):
        word_vectors.fill(jnp.zeros((256, 3)), tokenizer, found)
    with pytest.raises(UserError, match="no token is among the words"):
        word_vectors.fill(table, tokenizer, found._replace(words={"word": 0}))
