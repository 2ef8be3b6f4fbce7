"""Kernels in 8 or 4 bits: the nearest values, what the model computes with them, what trains."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from ml_collections import ConfigDict
from tiny_lm import tiny_encoder, tiny_lm, write_model, write_task

import lmlite
from configs import compare as defaults
from configs import export as export_defaults
from lmlite import tree
from lmlite.adapt import METHODS, attach
from lmlite.arms import Log
from lmlite.compare import compare, drawn
from lmlite.config import override
from lmlite.data.item import Item
from lmlite.errors import UserError
from lmlite.export import _tuples, export
from lmlite.jobs import jobs
from lmlite.models.layers import matmul
from lmlite.models.quantized import FORMATS, Quantized, decoded, encode, held, is_quantized
from lmlite.runtime import Meter
from lmlite.train import Settings, fit
from lmlite.workdir import read_config, write_config

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 256, (2, 24))
# QLoRA, arXiv:2305.14314, appendix E.
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip


def kernel(inputs: int, outputs: int) -> np.ndarray:
    made = RNG.normal(0, 0.02, (inputs, outputs)).astype(np.float32)
    made[:, 0] = 0.0  # an output that is nothing
    return made


def plain(lm):
    """The model with arrays in the place of quantized kernels."""
    return dataclasses.replace(lm, params=decoded(lm.params))


def quantized(lm, format):
    flat = {path: held(path, leaf, format) for path, leaf in tree.flatten(lm.params).items()}
    return dataclasses.replace(lm, params=tree.unflatten(flat))


@pytest.mark.parametrize("inputs", [128, 48, 65, 1])
def test_nf4_is_the_nearest_of_sixteen_values_a_group(inputs):
    w = kernel(inputs, 5)
    found = encode(jnp.asarray(w), "nf4")
    wanted = np.zeros_like(w)
    for start in range(0, inputs, 64):
        group = w[start : start + 64]
        most = np.abs(group).max(0)
        normal = group / np.where(most > 0, most, 1)
        wanted[start : start + 64] = NF4[np.abs(normal[..., None] - NF4).argmin(-1)] * most
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-6)
    assert found.shape == w.shape and found.codes.dtype == jnp.uint8
    assert found.codes.size == -(-inputs // 2) * 5


@pytest.mark.parametrize("inputs", [128, 33])
def test_int8_is_the_nearest_of_255_values_an_output(inputs):
    w = kernel(inputs, 5)
    found, step = encode(jnp.asarray(w), "int8"), np.abs(w).max(0) / 127
    wanted = np.round(w / np.where(step > 0, step, 1)) * step
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-6)
    assert np.abs(np.asarray(found) - w).max() <= step.max() / 2 + 1e-9
    assert found.codes.dtype == jnp.int8 and found.scale.shape == (1, 5)


def test_nf4_equals_bitsandbytes():
    torch, functional = (pytest.importorskip(n) for n in ("torch", "bitsandbytes.functional"))
    w = kernel(192, 40)
    codes, state = functional.quantize_4bit(torch.tensor(w.T.copy()), quant_type="nf4")
    found = encode(jnp.asarray(w), "nf4")
    wanted = functional.dequantize_4bit(codes, state).numpy().T
    np.testing.assert_array_equal(np.asarray(found), wanted)
    np.testing.assert_array_equal(np.asarray(found.codes).T.reshape(-1), codes.numpy().reshape(-1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format", FORMATS)
def test_products_and_their_gradient_are_those_of_the_decoded_kernel(format, dtype):
    held = encode(jnp.asarray(kernel(70, 6), dtype), format)
    x, g = RNG.normal(size=(3, 70)), RNG.normal(size=(3, 6))

    def of(w):
        y, back = jax.vjp(lambda x: matmul(x, w, dtype), jnp.asarray(x, jnp.float32))
        return y, *back(jnp.asarray(g, jnp.float32))

    near = dict(rtol=1e-5, atol=1e-6) if dtype == "float32" else dict(rtol=0.05, atol=0.01)
    for found, wanted in zip(jax.jit(of)(held), of(held.astype(dtype)), strict=True):
        np.testing.assert_allclose(found, wanted, **near)


@pytest.mark.parametrize("format", FORMATS)
def test_small_gradients_are_not_lost_in_float16(format):
    made = encode(jnp.asarray(kernel(256, 64), "float16"), format)
    x, g = RNG.normal(size=(8, 256)), RNG.normal(size=(8, 64)) * 1e-5

    def gradient(w, dtype):
        back = jax.vjp(lambda x: matmul(x, w, dtype), jnp.asarray(x, jnp.float32))[1]
        return back(jnp.asarray(g, jnp.float32))[0]

    wanted = gradient(made.astype("float32"), "float32")
    lost = jnp.linalg.norm(gradient(made, "float16") - wanted) / jnp.linalg.norm(wanted)
    assert lost < 0.02


@pytest.mark.parametrize("format", FORMATS)
def test_a_product_can_be_differentiated_twice(format):
    made, x = encode(jnp.asarray(kernel(64, 32)), format), RNG.normal(size=(3, 64))

    def second(w):
        def first(x):
            return jax.grad(lambda x: jnp.sum(jnp.tanh(matmul(x, w, "float32"))))(x)

        return jax.grad(lambda x: jnp.sum(first(x) ** 2))(jnp.asarray(x, jnp.float32))

    np.testing.assert_allclose(second(made), second(made.astype("float32")), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("format", FORMATS)
def test_arms_in_one_step_decode_a_kernel_once(format):
    made = encode(jnp.asarray(kernel(192, 160)), format)

    def gradients(x, w):
        return jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(matmul(x, w, "float32")))))(x)

    x = jnp.asarray(RNG.normal(size=(7, 3, 192)), jnp.float32)
    compiled = jax.jit(gradients).lower(x, made).compile()
    assert "[7,192,160]" not in compiled.as_text() and "[7,160,192]" not in compiled.as_text()
    wanted = gradients(x, made.astype("float32"))
    np.testing.assert_allclose(compiled(x, made), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [tiny_lm, tiny_encoder])
@pytest.mark.parametrize("format", FORMATS)
def test_a_model_answers_as_with_the_decoded_kernels(make, format):
    base = make()
    lm = quantized(base, format)
    held = [path for path, leaf in tree.flatten(lm.params).items() if isinstance(leaf, Quantized)]
    linear = {p for p in tree.flatten(base.params) if p.endswith("kernel") and "layers_" in p}
    assert set(held) == linear and "embed/embedding" not in held
    ids = IDS[:, :16]
    found = lm.logits(ids)
    np.testing.assert_allclose(found, plain(lm).logits(ids), rtol=1e-4, atol=1e-3)
    assert np.abs(found - base.logits(ids)).max() > 1e-3  # rounding shows
    assert tree.size_bytes(lm.params) < tree.size_bytes(base.params)


@pytest.mark.parametrize("format", FORMATS)
def test_an_encoder_decoder(format, tmp_path):
    case = parity.cases()["t5"]
    parity.write(tmp_path, case["config"], case["shapes"])
    lm, ids, targets = lmlite.load(tmp_path, quantize=format), parity.IDS, parity.TARGET_IDS
    cross = [p for p, x in tree.flatten(lm.params).items() if isinstance(x, Quantized)]
    assert any("encoder/" in p for p in cross) and any("/cross/" in p for p in cross)
    wanted = plain(lm).logits(ids, target_ids=targets)
    np.testing.assert_allclose(lm.logits(ids, target_ids=targets), wanted, rtol=1e-4, atol=1e-3)


def test_texts_are_those_of_the_decoded_kernels():
    lm = quantized(tiny_lm(), "nf4")
    prompts = ["abc", "a longer one"]
    assert lm.generate(prompts, max_new_tokens=12) == plain(lm).generate(
        prompts, max_new_tokens=12
    )


def items(n: int) -> list[Item]:
    """Byte strings whose last byte is to be predicted."""
    made = []
    for _ in range(n):
        ids = RNG.integers(0, 256, 9).astype(np.int32)
        place, branch = np.arange(9, dtype=np.int32), np.zeros(9, np.int32)
        made.append(Item(ids, place, branch, (8,), (((0, int(ids[0])),),)))
    return made


def trained(lm, method):
    adapted, labels = attach(method, lm, jax.random.key(0))
    optim = dict(learning_rate=0.05, weight_decay=0.0, schedule="linear", warmup=0.0,
                 clip_norm=1.0, accumulate=1)  # fmt: skip
    rng_items = items(8)
    result = fit(adapted, labels, rng_items, [], [], Settings(3, 4, 0, optim), 0, Meter())
    return adapted, labels, result.params


def test_lora_trains_beside_kernels_that_stay_as_they_are():
    global RNG
    lm, method = quantized(tiny_lm(), "nf4"), METHODS["lora"](targets=r"layers_\d+/attn/(q|v)")
    RNG = np.random.default_rng(1)
    adapted, labels, found = trained(lm, method)
    np.testing.assert_array_equal(adapted.logits(IDS), lm.logits(IDS))  # exact at step 0
    RNG = np.random.default_rng(1)
    _, _, wanted = trained(plain(lm), method)
    before, other = tree.flatten(adapted.params), tree.flatten(wanted)
    for path, leaf in tree.flatten(found).items():
        if labels[path] == tree.FROZEN:
            assert leaf is before[path]
        else:
            np.testing.assert_allclose(leaf, other[path], atol=2e-3, err_msg=path)
    b = "layers_0/attn/q/lora_b"
    assert np.abs(tree.flatten(found)[b] - before[b]).max() > 1e-2


@pytest.mark.parametrize("name", ["full", "last_layers", "l2_sp", "layerwise"])
def test_what_trains_the_kernels_is_refused(name):
    lm = quantized(tiny_lm(), "int8")
    with pytest.raises(UserError, match=r"trains layers_\d/.*kernel, which is held in int8; take"):
        attach(METHODS[name](), lm, jax.random.key(0))


def test_bad_settings(tmp_path):
    write_model(tmp_path, layers=1)
    with pytest.raises(UserError, match="quantize='int4' is unknown; known: int8, nf4"):
        lmlite.load(tmp_path, quantize="int4")
    with pytest.raises(UserError, match="quantize='int4' is unknown"):  # before it is looked for
        lmlite.load("package:nothing", quantize="int4")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A comparison on a quantized base: two runs of LoRA in one step, full tuning refused."""
    folder = tmp_path_factory.mktemp("quantized")
    write_model(folder / "model", layers=2)
    write_task(folder / "task.csv")
    config = defaults.get_config(
        f"csv:{folder / 'task.csv'}", str(folder / "model"), "2-shot,lora-qv,full"
    )
    small = {
        "task.labels": ("bad", "good"), "task.choices": ("bad", "good"), "examples": 12,
        "test_items": 6, "quantize": "nf4", "draws": (0,), "together": 2,
        "arms.lora-qv.train.epochs": 2, "arms.lora-qv.optim.learning_rate": 0.05,
    }  # fmt: skip
    config = override(config.lock(), small)
    write_config(folder / "run", config)
    with pytest.raises(UserError, match="arm full: .*held in nf4"):
        compare(config, folder / "run")
    return folder


def test_a_comparison_on_a_quantized_base(workdir):
    rows = [json.loads(line) for line in (workdir / "run/results.jsonl").read_text().splitlines()]
    assert {row["job"] for row in rows} == {"2-shot", "lora-qv"}
    assert all(row["fitted_together"] == 2 for row in rows if row["job"] == "lora-qv")
    assert "Linear layers held in: nf4" in (workdir / "run" / "report.md").read_text()


def test_a_tuned_model_keeps_its_quantized_kernels(workdir):
    config = ConfigDict(_tuples(read_config(workdir / "run")["config"]))
    (job, *_) = (job for job in jobs(config) if job.name == "lora-qv")
    (task, data, _), lm = drawn(config), lmlite.load(workdir / "model", quantize="nf4")
    found = tree.flatten(job.arm.fit(lm, task, data, 0, Log()).lm.params)
    assert all(found[path] is leaf for path, leaf in tree.flatten(lm.params).items())


def test_export_decodes_the_base_or_leaves_it(workdir, tmp_path):
    base = lmlite.load(workdir / "model", quantize="nf4")
    for format in ("merged", "peft"):
        made = export_defaults.get_config(str(workdir / "run"), format).lock()
        export(override(made, {"run": "lora-qv-0"}), tmp_path / format)
    merged = lmlite.load(tmp_path / "merged" / "model")
    adapted = lmlite.load_adapter(base, tmp_path / "peft" / "adapter")
    assert is_quantized(adapted.params) and not is_quantized(merged.params)
    wanted = adapted.logits(IDS)
    assert np.abs(wanted - base.logits(IDS)).max() > 1e-2
    np.testing.assert_allclose(merged.logits(IDS), wanted, rtol=1e-4, atol=1e-3)
    base.save(tmp_path / "plain")
    found = lmlite.load(tmp_path / "plain").logits(IDS)
    np.testing.assert_allclose(found, base.logits(IDS), rtol=1e-4, atol=1e-3)


def test_the_harness_takes_it(workdir):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance

    from lmlite.harness.model import LmliteLM

    def ask(model):
        asked = [Instance("loglikelihood", {}, ("abc", " de"), i) for i in range(2)]
        return model.loglikelihood(asked)

    found = ask(LmliteLM(source=str(workdir / "model"), quantize="nf4"))
    lmlite.load(workdir / "model", quantize="nf4").save(workdir / "decoded")
    wanted = ask(LmliteLM(source=str(workdir / "decoded")))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert abs(found[0][0] - ask(LmliteLM(source=str(workdir / "model")))[0][0]) > 1e-4
