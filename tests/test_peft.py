"""PEFT directories: PEFT's logits from PEFT's files, its files again from ours, errors in a line.

The stored directories and logits are PEFT's own (`references/make_peft.py`); where torch and peft
are installed, PEFT opens what lmlite writes as well.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from safetensors.numpy import load_file, save_file

import lmlite
from lmlite import peft, tree
from lmlite.adapt import METHODS, Adaptation, attach, attach_headed
from lmlite.errors import UserError

STORED = np.load(parity.REFERENCES / "peft.npz")
MODELS = parity.cases()
TOLERANCE = dict(atol=1e-4, rtol=1e-4)
WEIGHTS = "adapter_model.safetensors"
BLOCKS = r"(encoder/)?layers_\d+/(attn|cross|mlp)/\w+"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """base(name): the tiny model, loaded once."""
    folder, loaded = tmp_path_factory.mktemp("models"), {}

    def load(name):
        if name not in loaded:
            parity.write(folder / name, **MODELS[name])
            loaded[name] = lmlite.load(folder / name)
        return loaded[name]

    load.folder = folder
    return load


def directory(case):
    return parity.REFERENCES / "peft" / case


def logits(lm):
    return lm.logits(parity.IDS, target_ids=parity.TARGET_IDS if lm.config.cross else None)


@pytest.mark.parametrize("case", STORED)
def test_logits_are_those_of_peft(case, base):
    lm = base(case.split("-")[0])
    adaptation = peft.read(directory(case), lm)
    np.testing.assert_allclose(logits(adaptation.on(lm)), STORED[case], **TOLERANCE)
    assert np.abs(STORED[case] - logits(lm)).max() > 0.1
    if adaptation.method.foldable:
        np.testing.assert_allclose(logits(adaptation.folded(lm)), STORED[case], **TOLERANCE)


@pytest.mark.parametrize("case", STORED)
def test_what_was_read_is_written_as_it_was(case, base, tmp_path):
    lm = base(case.split("-")[0])
    read = peft.read(directory(case), lm)
    peft.write(tmp_path, read, lm)
    before, after = (load_file(d / WEIGHTS) for d in (directory(case), tmp_path))
    if lm.config.cross and "prompt_embeddings" in before:  # PEFT's holds what nothing reads
        before, after = (tree.flatten(x.params) for x in (read, peft.read(tmp_path, lm)))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_allclose(after[name], tensor, atol=1e-7, err_msg=name)
    old, new = (settings(d) for d in (directory(case), tmp_path))
    for field in ("use_rslora", "use_dora", "fan_in_fan_out", "num_virtual_tokens", "token_dim"):
        assert old.get(field) == new.get(field), field


def settings(folder):
    return json.loads((folder / "adapter_config.json").read_text())


# A method that PEFT has, as lmlite initialises and names it -> the models to try it on.
OURS = {
    "lora": dict(targets=BLOCKS, rank=2, ranks=((".*/v", 3),), alphas=((".*/q", 5.0),)),
    "rslora": dict(targets=BLOCKS, rank=4, rank_stabilised=True),
    "dora": dict(targets=r"(encoder/)?layers_\d+/attn/(q|v)", rank=2),
    "pissa": dict(targets=r"layers_\d+/(attn/(q|v)|mlp/up)", rank=2, alpha=3.0),
    "ia3": {},
    "prompt_tuning": dict(length=3, start="vocabulary"),
    "p_tuning": dict(length=3, hidden=6, encoder="lstm"),
    "prefix_tuning": dict(length=3, start="random"),
    "encoded_prefix": dict(length=3, hidden=6),
}
VIRTUAL = ("prompt_tuning", "p_tuning", "prefix_tuning", "encoded_prefix")
PAIRS = [(name, model) for name in OURS for model in ("llama", "gpt2", "bert", "t5")]
PAIRS += [(name, "bart") for name in VIRTUAL[::2]]


def fitted(name, lm) -> Adaptation:
    """A method with every trainable leaf away from where it started."""
    return fitted_to(METHODS["lora" if name == "rslora" else name](**OURS.get(name, {})), lm)


def fitted_to(method, lm) -> Adaptation:
    adapted, labels = attach(method, lm, jax.random.key(1), classes=3)
    train, frozen = tree.split(adapted.params, labels)
    rng = np.random.default_rng(3)
    moved = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), train)
    return Adaptation.of(method, lm, tree.merge(frozen, moved))


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_what_lmlite_made_survives_a_directory(name, model, base, tmp_path):
    lm = base(model)
    made = fitted(name, lm)
    peft.write(tmp_path, made, lm)
    again = peft.read(tmp_path, lm)
    for one, two in zip(content(made, lm), content(again, lm), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)


def content(found: Adaptation, lm) -> list:
    """What an adaptation amounts to: the folded kernels, the prompt, or the keys and values."""
    if found.method.foldable:
        return jax.tree.leaves(found.folded(lm).params)
    if hasattr(found.method, "pairs"):
        return jax.tree.leaves(found.method.pairs(lm.config, found.params))
    if hasattr(found.method, "prompt"):
        return [found.method.prompt(found.params)]
    return [found.params["embed"]["prompt"]]


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_peft_opens_what_lmlite_writes(name, model, base, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = pytest.importorskip("peft")
    lm = base(model)
    made = fitted(name, lm)
    peft.write(tmp_path, made, lm)
    architecture = getattr(transformers, MODELS[model]["config"]["architectures"][0])
    plain = architecture.from_pretrained(base.folder / model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda message, *rest, **_: fail_on_missing(message))
        opened = theirs.PeftModel.from_pretrained(plain, tmp_path).eval()
    inputs = {"input_ids": torch.from_numpy(parity.IDS)}
    if lm.config.cross:
        inputs["decoder_input_ids"] = torch.from_numpy(parity.TARGET_IDS)
    with torch.no_grad():
        found = opened(**inputs).logits.numpy()
    expected = logits(made.on(lm))
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected, **TOLERANCE)


def test_a_classifier_reads_the_first_learned_token_as_in_peft(base, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = pytest.importorskip("peft")
    lm = base("bert_classifier")
    made = fitted("prompt_tuning", lm)
    peft.write(tmp_path, made, lm)
    folder = base.folder / "bert_classifier"
    plain = transformers.BertForSequenceClassification.from_pretrained(folder)
    opened = theirs.PeftModel.from_pretrained(plain, tmp_path).eval()
    with torch.no_grad():
        found = opened(input_ids=torch.from_numpy(parity.IDS)).logits.numpy()
    np.testing.assert_allclose(made.on(lm).classify(parity.IDS), found, **TOLERANCE)
    assert np.abs(found - lm.classify(parity.IDS)).max() > 0.01


def fail_on_missing(message):
    assert "missing adapter keys" not in str(message), message


def test_target_modules_name_no_other_module(base, tmp_path):
    """BERT's 'dense' would be four modules; layers that differ are listed by their names."""
    for model, targets, wanted in (
        ("llama", r"layers_\d+/attn/(q|v)", ["q_proj", "v_proj"]),
        ("llama", r"layers_1/attn/q", ["model.layers.1.self_attn.q_proj"]),
        ("bert", r"layers_\d+/attn/(q|k)", ["key", "query"]),
        ("bert", r"layers_0/attn/o", ["bert.encoder.layer.0.attention.output.dense"]),
        ("gpt2", r"layers_\d+/attn/v", ["c_attn"]),
    ):
        lm = base(model)
        adapted, labels = attach(METHODS["lora"](targets=targets), lm, jax.random.key(0))
        own = Adaptation(METHODS["lora"](targets=targets), tree.split(adapted.params, labels)[0])
        peft.write(tmp_path, own, lm)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert config["target_modules"] == wanted


@pytest.mark.parametrize("outputs", ["layers_0/attn/(k|v)", r"layers_0/mlp/down"])
@pytest.mark.parametrize("inputs", [r"layers_\d+/mlp/down", "layers_1/mlp/down"])
def test_ia3_names_its_feed_forward_modules_among_its_targets(outputs, inputs, base, tmp_path):
    if outputs == inputs.replace(r"\d+", "0"):
        pytest.skip("both sides of one module")
    lm = base("llama")
    peft.write(tmp_path, fitted_to(METHODS["ia3"](outputs, inputs), lm), lm)
    found = settings(tmp_path)
    forward = set(found["feedforward_modules"])
    assert forward and forward <= set(found["target_modules"])
    names = [n.removeprefix("base_model.model.").removesuffix(".ia3_l")
             for n in load_file(tmp_path / WEIGHTS)]  # fmt: skip
    tensors = load_file(tmp_path / WEIGHTS).values()
    for name, tensor in zip(names, tensors, strict=True):  # as PEFT tells them, by their endings
        assert name.endswith(tuple(forward)) == (tensor.shape[0] == 1), name


def test_alphas_go_by_the_names_of_the_adapter(base, tmp_path):
    """The model stands in another one there, as Gemma 3's does."""
    lm = base("llama")
    peft.write(tmp_path, fitted("lora", lm), lm)
    plain, before = peft.read(tmp_path, lm), settings(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    inside = {n.replace(".layers.", ".language_model.layers."): x for n, x in tensors.items()}
    save_file(inside, tmp_path / WEIGHTS)
    pattern = {"model.language_model.layers.0.self_attn.v_proj": 77.0, **before["alpha_pattern"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(before | {"alpha_pattern": pattern}))
    found = peft.read(tmp_path, lm)
    for path in ("layers_0/attn/v", "layers_1/attn/v", "layers_0/attn/q"):
        rank, scale = plain.method.size(path)
        expected = 77.0 / rank if path == "layers_0/attn/v" else scale
        assert found.method.size(path) == (rank, pytest.approx(expected))


def test_a_head_travels_beside_the_adapter(base, tmp_path):
    lm = base("bert")
    method = METHODS["lora"](targets=r"layers_\d+/attn/q")
    headed, _ = attach_headed(method, lm, jax.random.key(0), 3)
    probe = {"kernel": jnp.ones((32, 3)), "bias": jnp.ones(3)}
    params = tree.merge(headed.params, {"probe": probe})
    made = Adaptation.of(method, lm, params)
    peft.write(tmp_path, made, lm)
    assert not any("probe" in name for name in load_file(tmp_path / WEIGHTS))
    again = peft.load_adapter(lm, tmp_path)
    assert again.head is headed.head
    np.testing.assert_array_equal(again.params["probe"]["kernel"], probe["kernel"])
    bodies = {name: leaf for name, leaf in made.params.items() if name != "probe"}
    peft.write(tmp_path, dataclasses.replace(made, params=bodies), lm)
    assert peft.load_adapter(lm, tmp_path).head is None  # the old head is gone


def change(tmp_path, case, config=(), tensors=None):
    """A copy of a stored directory with other settings or tensors."""
    shutil.copytree(directory(case), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
    if tensors:
        weights = tmp_path / "a" / WEIGHTS
        save_file(tensors(load_file(weights)), weights)
    return tmp_path / "a"


ODD = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def narrowed(tensors):
    return {name: x[:, :5].copy() if name in (ODD, "prompt_embeddings") else x
            for name, x in tensors.items()}  # fmt: skip


def without(tensors):
    return {name: x for name, x in tensors.items() if name != ODD}


def with_base_head(tensors):
    """As PEFT writes an adapter of an output layer: the base's weights go along."""
    return {**tensors, "base_model.model.lm_head.base_layer.weight": np.ones((4, 4), np.float32)}


def test_the_base_weights_beside_an_adapted_head_are_left_out(base, tmp_path):
    lm = base("llama")
    found = peft.read(change(tmp_path, "llama-lora", tensors=with_base_head), lm)
    np.testing.assert_array_equal(
        logits(found.on(lm)), logits(peft.read(directory("llama-lora"), lm).on(lm))
    )


@pytest.mark.parametrize(
    ("model", "case", "config", "tensors", "message"),
    [
        ("llama", "llama-lora", {"peft_type": "LOHA"}, None, "peft_type='LOHA' is not supported"),
        ("llama", "llama-lora", {"modules_to_save": ["score"]}, None, "modules_to_save=.*fold it"),
        ("llama", "llama-lora", {"bias": "all"}, None, "bias='all' is not supported"),
        ("llama", "llama-lora", {"init_lora_weights": "pissa_niter_4"}, None, "moved the base"),
        ("llama", "llama-lora", {"use_dora": True}, None, "lora_magnitude_vector' is missing"),
        ("llama", "llama-dora", {"use_dora": False}, None, "is none of lora_A.weight"),
        ("llama", "llama-lora", {}, narrowed, r"has shape \[3, 5\]"),
        ("llama", "llama-lora", {}, without, "is missing"),
        ("llama", "bert-lora", {}, None, "no linear layer of this llama model"),
        ("gemma2", "llama-head", {}, None, "no linear layer of this gemma2 model"),
        ("llama", "llama-prefix", {}, narrowed, "asks for 192"),
        ("bert", "bert-prompt", {"num_virtual_tokens": 2}, None, "config for 2 tokens"),
        ("t5", "t5-prefix", {"num_transformer_submodules": 1}, None, "mixes an"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(
    model, case, config, tensors, message, base, tmp_path
):
    with pytest.raises(UserError, match=message) as error:
        peft.read(change(tmp_path, case, config, tensors), base(model))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"lora_alpha": None}, "a field of the config has no use"),
        ({"alpha_pattern": {"(q": 3}}, "a field of the config has no use"),
        ({"use_bdlora": {"x": 1}}, "use_bdlora=.* is not supported; train a plain LoRA"),
    ],
)
def test_fields_without_a_use(config, message, base, tmp_path):
    with pytest.raises(UserError, match=message):
        peft.read(change(tmp_path, "llama-lora", config), base("llama"))


def test_half_a_directory_is_none(base, tmp_path, monkeypatch):
    """Not the new weights under the old config."""
    lm = base("llama")
    peft.write(tmp_path, fitted("lora", lm), lm)
    monkeypatch.setattr("lmlite.peft.directories.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        peft.write(tmp_path, fitted("lora", lm), lm)
    with pytest.raises(UserError, match="is not a PEFT adapter"):
        peft.read(tmp_path, lm)
    (tmp_path / f"{WEIGHTS}.part").mkdir()
    with pytest.raises(UserError, match="cannot write an adapter to .*; make room"):
        peft.write(tmp_path, fitted("lora", lm), lm)


def test_names_and_revisions_of_the_hub(base, tmp_path):
    from lmlite.export import _base

    lm = dataclasses.replace(base("llama"), source="hf://org/name@v1")
    peft.write(tmp_path, fitted("lora", lm), lm)
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == ("org/name", "v1")
    assert _base(told) == "hf://org/name@v1"
    assert _base({"base_model_name_or_path": str(tmp_path)}) == str(tmp_path)
    assert _base({"base_model_name_or_path": "package:x"}) == "package:x"


@pytest.mark.parametrize("encoder, decoder", [(3, 2), (4, 3), (3, 1)])
def test_prefixes_of_stacks_of_unequal_depth(encoder, decoder, tmp_path):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = pytest.importorskip("peft")
    torch.manual_seed(1)
    size = dict(d_model=32, encoder_attention_heads=4, decoder_attention_heads=4, vocab_size=99)
    size |= dict(encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64)
    ends = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)
    made = hf.BartConfig(**size, **ends, encoder_layers=encoder, decoder_layers=decoder)
    plain = hf.BartForConditionalGeneration(made).eval()
    plain.save_pretrained(tmp_path / "base")
    spec = theirs.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    adapted = theirs.get_peft_model(plain, spec).eval()
    torch.nn.init.normal_(adapted.prompt_encoder["default"].embedding.weight)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = {"input_ids": parity.IDS % 99, "decoder_input_ids": parity.TARGET_IDS % 99}
    with torch.no_grad():
        wanted = adapted(**{name: torch.from_numpy(x) for name, x in ids.items()}).logits.numpy()
    lm = peft.load_adapter(lmlite.load(tmp_path / "base"), tmp_path / "adapter")
    found = lm.logits(ids["input_ids"], target_ids=ids["decoder_input_ids"])
    np.testing.assert_allclose(found, wanted, **TOLERANCE)


def test_directories_that_are_none(base, tmp_path):
    with pytest.raises(UserError, match="not a PEFT adapter"):
        peft.read(tmp_path, base("llama"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="safe_serialization"):
        peft.read(tmp_path, base("llama"))
    (tmp_path / WEIGHTS).write_text("no")
    with pytest.raises(UserError, match="damaged"):
        peft.read(tmp_path, base("llama"))


def test_what_cannot_be_written_is_told(base, tmp_path):
    lm = base("llama")
    with pytest.raises(UserError, match="no format for method VeRA"):
        peft.write(tmp_path, Adaptation(METHODS["vera"](), {}), lm)
    both = METHODS["ia3"](outputs="layers_0/mlp/down", inputs="layers_0/mlp/down")
    adapted, labels = attach(both, lm, jax.random.key(0))
    with pytest.raises(UserError, match="scales both sides of model.layers.0.mlp.down_proj"):
        peft.write(tmp_path, Adaptation(both, tree.split(adapted.params, labels)[0]), lm)
    lora = fitted("lora", lm)
    stray = tree.merge(lora.params, {"layers_0": {"mlp": {"up": {"kernel": jnp.zeros((2, 2))}}}})
    with pytest.raises(UserError, match="'layers_0/mlp/up/kernel' has no place"):
        peft.write(tmp_path, Adaptation(lora.method, stray), lm)
