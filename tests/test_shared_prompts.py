"""Prompts that begin alike are read once in a batch, and go on as each does alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_lm import tiny_lm

from lmlite.adapt import METHODS, attach
from lmlite.arms import Labelled, Log
from lmlite.arms.in_context import InContext
from lmlite.data.task import Example, Task
from lmlite.data.task import Generation as Written
from lmlite.decode import generate, loop
from lmlite.decode.prompts import batches
from lmlite.decode.sampling import Sampler
from lmlite.decode.shared import reading
from lmlite.models.build import build
from lmlite.models.config import EncDecConfig, RecurrentConfig
from lmlite.models.virtual import Virtual
from lmlite.runtime import Meter

MODELS = {
    "llama": {},
    "window": dict(window=30, window_layers=(0, 2)),
    "gpt2": dict(position="learned", norm="layer", gated=False, qkv_bias=True),
}
SEARCHES = {
    "greedy": {},
    "penalty": dict(repetition_penalty=1.5),
    "beams": dict(beams=3),
    "samples": dict(samples=2, temperature=1.0),
}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def ids(draw, n: int) -> list[int]:
    return [int(i) for i in draw.integers(1, 256, n)]


def asked(passages: int = 4, questions: int = 4, length: int = 100, seed: int = 0):
    """Questions of 5 .. 11 tokens on passages of about `length`, in no order."""
    draw = np.random.default_rng(seed)
    texts = [ids(draw, length - 3 * p) for p in range(passages)]
    made = [text + ids(draw, int(draw.integers(5, 12))) for text in texts for _ in range(questions)]
    return [made[i] for i in draw.permutation(len(made))]


def unlike(prompts, seed: int = 1):
    """Prompts of the same lengths that share nothing."""
    draw = np.random.default_rng(seed)
    return [ids(draw, len(prompt)) for prompt in prompts]


@pytest.fixture
def shapes(monkeypatch):
    """Of every batch read: (B, T), and (R, W) where it is read as trees."""
    seen, begin = [], loop.begin

    def begun(*args):
        shared = args[7] if len(args) > 7 else None
        seen.append((args[5].shape, None if shared is None else shared.ids.shape))
        return begin(*args)

    monkeypatch.setattr(loop, "begin", begun)
    return seen


def alone(lm, prompts, **options):
    n = options.get("samples", 1)
    found = []
    for i, prompt in enumerate(prompts):
        found += generate(lm, [prompt], numbers=range(i * n, i * n + n), **options)
    return found


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("family", MODELS)
def test_texts_are_those_of_each_prompt_alone(family, search, shapes):
    lm, prompts = tiny_lm(**MODELS[family]), asked(length=60)
    prompts += [prompts[0], prompts[1][:-1], ids(np.random.default_rng(2), 30)]
    options = dict(max_new_tokens=10, **SEARCHES[search])
    expected = alone(lm, prompts, **options)
    assert {trees for _, trees in shapes} == {None}
    for size in (1, 7, 64):
        shapes.clear()
        assert generate(lm, prompts, batch_size=size, **options) == expected
        assert any(trees for _, trees in shapes) is (size > 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_is_that_of_separate_rows(dtype):
    lm = tiny_lm(scale=2.0)
    lm = dataclasses.replace(lm, module=build(lm.config, dtype))
    padded, length, shared = reading(lm.config, asked(), 18)  # two rows fill the batch up
    search = Sampler({}, jax.random.split(jax.random.key(0), 18), jnp.zeros(1, jnp.int32))
    both = [
        loop.begin(Meter(), lm.network, 8, lm.params, search, padded, length, how)
        for how in (None, shared)
    ]
    held = np.arange(padded.shape[1] + 8) < length[:, None]
    for one, other in zip(*(jax.tree.leaves(run.cache.layers) for run in both), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype == dtype
        one, other = (np.asarray(x, np.float32).swapaxes(1, 2)[held] for x in (one, other))
        near = 1e-5 if dtype == "float32" else 0.05
        np.testing.assert_allclose(one, other, atol=near * np.abs(one).max())
    apart, once = (run.cache for run in both)
    assert int(apart.slot) == int(once.slot)
    for one, other in zip(apart.tokens, once.tokens, strict=True):
        np.testing.assert_array_equal(np.where(held, one, 0), np.where(held, other, 0))
    if dtype == "float32":
        np.testing.assert_array_equal(both[0].token, both[1].token)


def test_four_questions_on_a_passage_cost_little_more_than_one(lm):
    prompts = asked(length=200)
    costs = []
    for own in (prompts, unlike(prompts)):
        meter = Meter()
        generate(lm, own, max_new_tokens=1, meter=meter)
        costs.append(meter.flops)
    assert costs[0] < 0.35 * costs[1]


def test_prompts_of_a_passage_come_into_one_batch(lm, shapes):
    prompts = asked(passages=6, questions=3)
    generate(lm, prompts, max_new_tokens=1, batch_size=6)
    assert shapes == [((6, 128), (2, 128))] * 3  # two passages a batch, each in a row
    shapes.clear()
    generate(lm, prompts * 2, max_new_tokens=1, batch_size=12)  # a prompt that is there twice
    assert shapes == [((12, 128), (2, 128))] * 3


def test_prompts_that_share_nothing_are_read_as_ever(lm, shapes):
    """Nor are those that fill a batch up shared, and the longest are first."""
    prompts = unlike(asked(passages=5))
    order = sorted(range(20), key=lambda i: -len(prompts[i]))
    assert batches(prompts, 7) == [order[:7], order[7:14], order[14:]]
    few = [[1, 2, 3, *prompt] for prompt in prompts]
    draw = dict(max_new_tokens=1, batch_size=16)
    generate(lm, prompts, **draw)
    meter = Meter()
    generate(lm, few, meter=meter, **draw)
    generate(lm, few[:1], fill=True, meter=meter, **draw)
    assert shapes == [((16, 128), None)] * 5 and meter.compile_seconds == 0


def test_passages_behind_passages_and_lengths_apart():
    """Prompts that share instructions are still ordered by what comes after them."""
    draw = np.random.default_rng(0)
    head = ids(draw, 300)
    prompts = [head + p for p in asked(passages=8, questions=2, length=60)]
    found = batches(prompts, 4)
    pairs = [{tuple(prompts[i][:330]) for i in batch} for batch in found]
    assert [len(batch) for batch in found] == [4] * 4 and all(len(own) == 2 for own in pairs)
    short = [head[:20] + ids(draw, int(n)) for n in draw.integers(1, 400, 40)]
    longest = [max(len(short[i]) for i in batch) for batch in batches(short, 8)]
    assert longest == sorted((len(p) for p in short), reverse=True)[::8]  # as if they shared none


def test_trees_take_no_more_room_than_rows(lm):
    draw, sharing = np.random.default_rng(0), 0
    for seed in range(60):
        length = int(draw.integers(20, 400))
        prompts = asked(int(draw.integers(1, 6)), int(draw.integers(1, 9)), length, seed)
        padded, _, shared = reading(lm.config, prompts, len(prompts))
        if shared is not None:
            sharing += 1
            assert shared.ids.size < padded.size and shared.place.max() < shared.ids.size
            own = np.asarray(shared.ids).reshape(-1)[shared.place]
            for row, prompt in zip(own, prompts, strict=True):
                assert row[: len(prompt)].tolist() == prompt
    assert sharing > 30


def test_other_models_read_each_prompt_by_itself():
    sizes = dict(vocab_size=256, width=8, layers=1)
    stack = dict(heads=1, kv_heads=1, head_size=8, hidden=8, max_positions=512)
    encoder = dict(encoder_layers=1, encoder_heads=1, encoder_hidden=8, start_id=1)
    for config in (
        EncDecConfig(**sizes, **stack, **encoder),
        RecurrentConfig(**sizes, embed_width=8, cell="gru"),
    ):
        assert reading(config, asked(), 16)[2] is None


def test_passages_behind_learned_tokens(lm, shapes):
    before, prompts = jnp.arange(5, 12), asked()
    virtual = Virtual(7, lambda network, params: network.prefill(params, before, before > 0))
    found = generate(dataclasses.replace(lm, virtual=virtual), prompts, max_new_tokens=8)
    assert shapes == [((16, 128), (4, 192))]
    whole = alone(lm, [before.tolist() + prompt for prompt in prompts], max_new_tokens=8)
    assert [one.ids for one in found] == [one.ids for one in whole]


@pytest.mark.parametrize("samples", [1, 3])
def test_answers_on_passages_behind_demonstrations(lm, shapes, samples):
    """The demonstrations are prefilled for all prompts, each passage for its questions."""
    draw = np.random.default_rng(0)

    def text(n: int) -> str:
        return "".join(chr(97 + i) for i in draw.integers(0, 26, n))

    passages = [text(80) for _ in range(4)]
    pool = tuple(
        Example(f"e{i}", f"{passages[i % 4]} {text(4)}?", (), "so", f"g{i}") for i in range(18)
    )
    drawn = dict(max_new_tokens=5, temperature=1.0 if samples > 1 else 0.0)
    written = Written(**drawn, samples=samples)
    task = Task("t", (), pool, (), pool, fewshot_delimiter=";", generation=written)
    predictor = InContext(2, readings=()).fit(lm, task, Labelled(pool[:2], ()), 0, Log())
    shown = pool[2:]
    found = predictor.write(shown, Meter(), 0)
    assert shapes[0][1] is not None
    whole = [lm.text.encode(prompt) for prompt in predictor.prompts(shown)]
    whole = alone(lm, whole, samples=samples, **drawn)
    assert [text for own in found for text in own] == [one.text for one in whole]


def test_a_tuned_model_reads_passages_once(lm, shapes):
    adapted, _ = attach(METHODS["lora"](rank=2), lm, jax.random.key(0))
    draw = np.random.default_rng(0)
    noise = jax.tree.map(lambda x: x + jnp.float32(draw.normal(0, 0.02, x.shape)), adapted.params)
    adapted, prompts = dataclasses.replace(adapted, params=noise), asked()
    found = generate(adapted, prompts, max_new_tokens=8)
    assert shapes == [((16, 128), (4, 192))]
    assert found == alone(adapted, prompts, max_new_tokens=8)
    assert found != generate(lm, prompts, max_new_tokens=8)
