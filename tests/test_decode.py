"""Generation: cached = full forward, batch = alone, searches and filters against their oracles."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import lmlite
from lmlite.config import load, override
from lmlite.decode import command, generate, loop, prompts, sampling
from lmlite.decode.transcript import Transcript
from lmlite.errors import UserError
from lmlite.models.build import build
from lmlite.models.config import EncDecConfig
from lmlite.models.lm import LM
from lmlite.models.tokenizer import Tokenizer
from lmlite.models.tokens import Tokens
from lmlite.models.virtual import Virtual
from lmlite.runtime import Meter
from tests.tiny_lm import byte_tokenizer, tiny_lm, write_model

REFERENCE = json.loads((Path(__file__).parent / "references" / "generate_smollm2.json").read_text())
CASES = REFERENCE["cases"]
RAGGED = ["a", "The cat sat on the mat", "12345", "A man, a plan, a canal: Panama!"]
FAMILIES = {
    "llama": {},
    "window": dict(window=5, window_layers=(0, 2)),
    "gpt2": dict(position="learned", norm="layer", gated=False, qkv_bias=True),
    "gemma": dict(attn_soft_cap=5.0, final_soft_cap=3.0, qk_norm=True, post_norms=True),
}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def endless(lm):
    """The model without ids that end a text."""
    return dataclasses.replace(lm, config=dataclasses.replace(lm.config, eos_ids=()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recorder:
    """A search that follows a script, int32[B, N], and keeps the logits it is given."""

    script: jax.Array
    rule: dict

    rows_each = 1

    def begin(self, rows, seen, room):
        return jnp.zeros((rows, room, 256))

    def extend(self, state, logits, step):
        return state.at[:, step].set(logits), self.script[:, step], None

    def open(self, state):
        return jnp.array(True)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_logits_of_a_ragged_batch_equal_the_full_forward(family):
    lm = tiny_lm(scale=3.0, **FAMILIES[family])
    encoded = prompts.encode(lm, RAGGED, chat=False)
    script = np.random.default_rng(0).integers(0, 256, (len(encoded), 12))
    search = Recorder(jnp.asarray(script, jnp.int32), {})
    run = loop.begin(Meter(), lm.network, 12, lm.params, search, *prompts.pad(encoded))
    for step in (5, 12):
        run = loop.advance(Meter(), lm.network, lm.params, search, run, jnp.int32(step))
    cached = np.asarray(run.search)
    for ids, written, logits in zip(encoded, script, cached, strict=True):
        whole = np.asarray(lm.logits([[*ids, *written[:-1]]]))[0, len(ids) - 1 :]
        np.testing.assert_allclose(logits, whole, atol=1e-5 * np.abs(whole).max())


def slow_greedy(logits, start, count):
    """Ids made one by one, each by a full forward; logits: padded ids [1, T] -> [1, T, V]."""
    ids = np.zeros((1, len(start) + count), int)
    ids[0, : len(start)] = start
    for n in range(len(start), len(start) + count):
        ids[0, n] = logits(ids)[0, n - 1].argmax()  # causal: what follows changes nothing
    return ids[0, len(start) :].tolist()


def test_greedy_equals_repeated_full_forwards(lm):
    lm = endless(lm)
    ids = lm.text.encode("The cat")
    (one,) = generate(lm, [ids], max_new_tokens=20)
    assert (one.prompt_ids, one.ids) == (ids, slow_greedy(lm.logits, ids, 20))
    assert one.text == lm.text.decode(one.ids)
    assert lm.generate("The cat", max_new_tokens=20) == [one.text]


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"repetition_penalty": 1.5}])
def test_a_ragged_batch_equals_each_prompt_alone(lm, options):
    together = generate(lm, RAGGED, max_new_tokens=12, **options)
    alone = [generate(lm, prompt, max_new_tokens=12, **options)[0] for prompt in RAGGED]
    assert together == alone


def test_virtual_tokens_stand_before_the_prompt(lm):
    before = jnp.asarray(lm.text.encode("xyz"))
    virtual = Virtual(3, lambda network, params: network.prefill(params, before, before >= 0))
    prompted = generate(dataclasses.replace(lm, virtual=virtual), ["The cat", "a"])
    written = generate(lm, ["xyzThe cat", "xyza"])
    assert [one.ids for one in prompted] == [one.ids for one in written]


@pytest.mark.parametrize("position", ["relative", "learned"])
def test_an_encoder_decoder_answers_as_repeated_full_forwards_do(position):
    config = EncDecConfig(
        vocab_size=256, width=32, layers=2, heads=4, kv_heads=4, head_size=8, hidden=48,
        max_positions=64, encoder_layers=2, encoder_heads=4, encoder_hidden=48, start_id=7,
        position=position,
    )  # fmt: skip
    module, ids = build(config), jnp.zeros((1, 4), jnp.int32)
    params = module.init(jax.random.key(0), ids, Tokens.from_mask(ids == 0))["params"]
    params = jax.tree.map(lambda x: x * 6 if x.ndim == 2 else x, params)
    lm = LM(module, params, config, byte_tokenizer())
    source, length = prompts.pad(prompts.encode(lm, RAGGED, chat=False))
    mask = np.arange(source.shape[1]) < length[:, None]
    made = generate(lm, RAGGED, max_new_tokens=5)
    for one, row, seen in zip(made, source, mask, strict=True):

        def logits(ids, row=row, seen=seen):
            return lm.logits([row], [seen], ids)

        assert one.ids == slow_greedy(logits, [7], 5)
    beams = generate(lm, RAGGED, max_new_tokens=5, beams=3)
    assert beams == [generate(lm, p, max_new_tokens=5, beams=3)[0] for p in RAGGED]


def best_sequence(lm, ids, count, penalty):
    """The best of all sequences that end with an end id or have `count` tokens."""
    every = list(itertools.product(range(lm.config.vocab_size), repeat=count))
    logits = lm.logits([[*ids, *made] for made in every])[:, len(ids) - 1 :]
    scores = {}
    for made, logp in zip(every, np.asarray(jax.nn.log_softmax(logits)), strict=True):
        ends = [i + 1 for i, token in enumerate(made) if token in lm.config.eos_ids]
        n = min([*ends, count])
        scores[made[:n]] = float(sum(logp[i, made[i]] for i in range(n))) / n**penalty
    return max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
@pytest.mark.parametrize("eos", [(), (1,), (1, 2)])
def test_wide_beams_find_the_best_sequence_of_all(penalty, eos):
    lm = tiny_lm(vocab_size=3, eos_ids=eos, scale=3.0)
    found = []
    for ids in ([0], [2, 1, 0]):
        (one,) = generate(lm, [ids], max_new_tokens=3, beams=40, length_penalty=penalty)
        best = best_sequence(lm, ids, 3, penalty)
        found.append((one.ids, [token for token in best if token not in eos]))
    assert all(ids == best for ids, best in found), found


def numpy_filter(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Which tokens stay: sorted and cut one filter after the other, as `transformers` does."""
    logits = logits.astype(np.float64) / temperature
    kept = np.ones(len(logits), bool)

    def probabilities():
        p = np.where(kept, np.exp(logits - logits.max()), 0)
        return p / p.sum()

    if top_k:
        kept &= logits >= np.sort(logits)[-min(top_k, len(logits))]
    if top_p < 1:
        p = probabilities()
        order = np.argsort(-p)
        before = np.cumsum(p[order]) - p[order]
        kept[order[before >= top_p]] = False
    if min_p:
        p = probabilities()
        kept &= p >= min_p * p.max()
    return kept


@pytest.mark.parametrize(
    "options",
    [
        dict(top_k=1),
        dict(top_k=17),
        dict(top_k=10_000),
        dict(top_p=1e-6),
        dict(top_p=0.7),
        dict(min_p=0.05),
        dict(temperature=0.5, top_p=0.9),
        dict(temperature=2.0, top_k=50, top_p=0.8, min_p=0.1),
    ],
)
def test_filters_keep_what_sorting_keeps(options):
    rows = np.random.default_rng(0).normal(size=(20, 500)).astype(np.float32) * 3
    off = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)
    rule = sampling.rule(**off | options)
    p = sampling.filtered(jax.nn.softmax(rows / rule["temperature"]), rule)
    expected = np.array([numpy_filter(row, **options) for row in rows])
    assert expected.sum() not in (0, expected.size) or options == dict(top_k=10_000)
    np.testing.assert_array_equal(np.asarray(p) > 0, expected)


def test_draws_have_the_probabilities_of_the_filtered_softmax():
    logits = jnp.array([2.0, 1.0, 0.5, -1.0, -3.0])
    rule = sampling.rule(0.8, 3, 1.0, 0.0, 1.0)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = sampling.choose(jnp.tile(logits, (len(keys), 1)), None, rule, keys)
    expected = np.exp(np.array([2.0, 1.0, 0.5]) / 0.8)
    share = np.bincount(drawn, minlength=5) / len(keys)
    np.testing.assert_allclose(share, [*expected / expected.sum(), 0, 0], atol=0.012)


def test_the_penalty_lowers_what_was_seen():
    logits, seen = jnp.array([[2.0, -2.0, 2.0, -2.0]]), jnp.array([[True, True, False, False]])
    np.testing.assert_allclose(sampling.penalised(logits, seen, 2.0), [[1.0, -4.0, 2.0, -2.0]])


def test_the_penalty_counts_prompt_and_text_alike(lm):
    ids = lm.text.encode("The cat")
    (one,) = generate(endless(lm), [ids], max_new_tokens=20, repetition_penalty=1e9)
    assert len({*ids, *one.ids}) == len(set(ids)) + 20


def test_draws_depend_on_seed_row_and_step_alone(lm):
    options = dict(max_new_tokens=12, temperature=1.0)
    drawn = generate(endless(lm), RAGGED * 2, seed=3, **options)
    assert drawn == generate(endless(lm), RAGGED * 2, seed=3, batch_size=3, **options)
    assert drawn[:1] == generate(endless(lm), RAGGED[:1], seed=3, **options)
    assert drawn[:4] != drawn[4:]
    assert drawn != generate(endless(lm), RAGGED * 2, seed=4, **options)
    assert len(set(drawn[0].ids)) > 6


def test_a_text_ends_at_an_end_id(lm):
    whole = generate(endless(lm), "The cat", max_new_tokens=20)[0].ids
    place = next(i for i in range(5, 20) if whole[i] not in whole[:i])
    ends = dataclasses.replace(lm.config, eos_ids=(whole[place],))
    (one,) = generate(dataclasses.replace(lm, config=ends), "The cat", max_new_tokens=20)
    assert one.ids == whole[:place]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_stop_texts_cut_each_row_and_the_stream(lm, batch_size):
    lm = endless(lm)
    drawn = dict(max_new_tokens=20, temperature=1.0)  # greedy text of random weights repeats itself
    free = generate(lm, RAGGED, **drawn)
    stops = [(r, free[r].text[i : i + 2]) for r in range(len(RAGGED)) for i in range(4, 12)]
    cut, stop = next(
        (r, text) for r, text in stops if "\ufffd" not in text and free[r].text.find(text) >= 4
    )
    pieces = [""] * len(RAGGED)

    def stream(row, piece):
        assert piece
        pieces[row] += piece

    options = dict(drawn, stop=("never made", stop), stream=stream)
    made = generate(lm, RAGGED, batch_size=batch_size, **options)
    assert [one.text for one in made] == [one.text.split(stop)[0] for one in free] == pieces
    assert lm.text.decode(made[cut].ids).endswith(stop) and stop not in made[cut].text


def test_a_special_token_among_the_stop_texts_ends_a_text(lm):
    lm = endless(lm)
    drawn = dict(max_new_tokens=20, temperature=1.0)
    (free,) = generate(lm, ["a"], **drawn)
    backend = tokenizers.Tokenizer.from_str(lm.text.backend.to_str())
    token = backend.id_to_token(free.ids[7])
    backend.add_special_tokens([token])
    special = dataclasses.replace(lm, tokenizer=Tokenizer(backend, lm.text.config))
    (cut,) = generate(special, ["a"], stop=(token,), **drawn)
    assert cut.ids == free.ids[: free.ids.index(free.ids[7])]
    with pytest.raises(UserError, match="holds the special token .*; name that alone"):
        generate(special, ["a"], stop=(f"{token} and",), **drawn)


def test_a_transcript_shows_only_what_is_final():
    tokenizer, shown = byte_tokenizer(), []
    ids = tokenizer.encode("añ END")
    transcript = Transcript(tokenizer, [], (), ("END",), shown.append)
    for n in range(1, len(ids) + 1):
        transcript.update(ids[:n])
    assert shown == ["a", "ñ", " "] and transcript.done and transcript.text == "añ "
    cut_off = Transcript(tokenizer, [], (), ("END",), shown.append)
    cut_off.update(ids[:-1])
    cut_off.close()
    assert shown[3:] == ["añ ", "EN"]


def test_nothing_compiles_when_only_length_or_numbers_change(lm):
    def compiling(prompts, **options):
        meter = Meter()
        generate(lm, prompts, max_new_tokens=60, top_k=5, stop="~", meter=meter, **options)
        return meter.compile_seconds

    assert compiling(["x" * 17, "y" * 20], temperature=0.5) > 0
    assert compiling(["x" * 32, "y" * 9], temperature=0.7, seed=1) == 0
    assert compiling(["x" * 33, "y" * 9], temperature=0.7) > 0
    unlike = [c * n for c, n in zip("vwxyz", (33, 40, 45, 50, 60), strict=True)]
    assert compiling(unlike, temperature=0.7, batch_size=2) == 0


def test_chat_wraps_each_prompt():
    lm = tiny_lm()
    lm.text.config["chat_template"] = "<{{ messages[0].role }}>{{ messages[0].content }}"
    (one,) = generate(lm, "hi", chat=True, max_new_tokens=1)
    assert lm.text.decode(one.prompt_ids) == "<user>hi"


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(prompts=[]), "prompts is empty"),
        (dict(prompts=["a", ""]), "prompts[1] is empty"),
        (dict(prompts=[[1, 256]]), "0..255"),
        (dict(prompts="a" * 1000), "context of 1024"),
        (dict(prompts=[[1]], chat=True), "chat=True"),
        (dict(chat=True), "no chat template"),
        (dict(max_new_tokens=0), "max_new_tokens=0"),
        (dict(temperature=-1.0), "temperature=-1.0"),
        (dict(temperature=1.0, top_p=0.0), "top_p=0.0"),
        (dict(top_k=5), "top_k=5 does nothing at temperature=0"),
        (dict(beams=2, temperature=1.0), "beams=2"),
        (dict(beams=0), "beams=0"),
        (dict(repetition_penalty=0.0), "repetition_penalty=0.0"),
        (dict(stop=("a", "")), "stop"),
    ],
)
def test_bad_options_are_one_line(lm, given, words):
    with pytest.raises(UserError) as caught:
        lm.generate(**dict(prompts="a") | given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_tokenizer_makes_ids_alone(lm):
    bare = dataclasses.replace(lm, tokenizer=None)
    ids = lm.text.encode("The cat")
    (one,) = generate(bare, [ids], max_new_tokens=5)
    assert one.ids == generate(lm, [ids], max_new_tokens=5)[0].ids and one.text == ""
    with pytest.raises(UserError, match="no tokenizer"):
        bare.generate([ids])


def test_the_experiment_streams_records_and_resumes(tmp_path, capsys):
    write_model(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("The cat\n\nA dog\na\n")
    _, config = load("configs/generate.py")
    fields = dict(model=str(tmp_path / "model"), prompts="The cat")
    config = override(config, fields | {"options.max_new_tokens": 8})
    command.command(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    assert [row.keys() for row in rows] == [{"prompt", "text", "tokens", "seconds"}]
    assert f"The cat{rows[0]['text']}\n" in capsys.readouterr().out

    config = override(config, dict(prompts_file=str(tmp_path / "prompts.txt"), batch_size=2))
    command.command(config, tmp_path)
    again = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    assert again[0] == rows[0] and [row["prompt"] for row in again] == ["The cat", "A dog", "a"]
    (tmp_path / "prompts.txt").write_text("The cat\n\nAnother\na\n")
    with pytest.raises(UserError, match="the prompts have changed since .*generations.jsonl"):
        command.command(config, tmp_path)
    drawn = {"prompts": "", "prompts_file": str(tmp_path / "same.txt"), "options.temperature": 1.0}
    (tmp_path / "same.txt").write_text("A dog\n" * 3)
    found = []
    for size in (1, 2):
        (tmp_path / f"{size}").mkdir()
        command.command(override(config, drawn | {"batch_size": size}), tmp_path / f"{size}")
        lines = (tmp_path / f"{size}" / "generations.jsonl").read_text().splitlines()
        found.append([json.loads(line)["text"] for line in lines])
    assert len(set(found[0])) == 3 and found[0] == found[1]
    for prompts_, file in (("\n ", ""), ("", str(tmp_path))):
        with pytest.raises(UserError, match="prompts"):
            command.read_prompts(prompts_, file)


@pytest.fixture(scope="module")
def smollm2():
    return lmlite.load("package:smollm2-135m-instruct")


NAMES = {"num_beams": "beams"}  # theirs -> ours
SETTINGS = [json.loads(s) for s in dict.fromkeys(json.dumps(c["settings"]) for c in CASES)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_smollm2_generates_what_transformers_does(smollm2, settings):
    cases = [case for case in CASES if case["settings"] == settings]
    options = {NAMES.get(name, name): value for name, value in settings.items()}
    texts = [case["prompt"] for case in cases]
    made = generate(smollm2, texts, max_new_tokens=REFERENCE["new_tokens"], **options)
    eos = smollm2.config.eos_ids
    expected = [[i for i in case["ids"] if i not in eos] for case in cases]
    assert [one.ids for one in made] == expected
