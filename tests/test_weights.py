"""Hugging Face directories in and out: values, names, shards, dtypes, memory, errors."""

import json
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file
from tiny_models import (
    CONFIGS,
    D,
    F,
    H,
    V,
    assert_same,
    config_of,
    make,
    random_tensors,
    read,
    shapes_of,
)

from lmlite.errors import UserError
from lmlite.models import hf
from lmlite.models.load import load


@pytest.mark.parametrize("name", CONFIGS)
def test_load_save_load_is_exact(tmp_path, name):
    tensors = make(tmp_path / "a", name)
    config, params = read(tmp_path / "a")
    hf.write(tmp_path / "b", config, params)
    assert_same(tensors, load_file(tmp_path / "b" / "model.safetensors"))
    again, params_again = read(tmp_path / "b")
    assert again == config
    assert_same(params, params_again)


def test_kernels_are_transposed_and_the_joined_ones_split(tmp_path):
    tensors = make(tmp_path / "llama", "llama")
    _, params = read(tmp_path / "llama")
    q = tensors["model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(params["layers_1"]["attn"]["q"]["kernel"], q.T)
    tensors = make(tmp_path / "gpt2", "gpt2")
    _, params = read(tmp_path / "gpt2")
    joined = tensors["transformer.h.0.attn.c_attn.weight"]
    for i, part in enumerate("qkv"):
        kernel = params["layers_0"]["attn"][part]["kernel"]
        np.testing.assert_array_equal(kernel, joined[:, i * D : (i + 1) * D])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["float32", ml_dtypes.bfloat16, "float16"])
def test_dtypes(tmp_path, stored, dtype):
    tensors = make(tmp_path, "llama", random_tensors("llama", stored))
    config, params = read(tmp_path, dtype)
    embed = params["embed"]["embedding"]
    assert embed.dtype == dtype
    np.testing.assert_array_equal(embed, tensors["model.embed_tokens.weight"].astype(dtype))
    hf.write(tmp_path / "b", config, params)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == dtype


def test_shards(tmp_path):
    make(tmp_path / "a", "llama")
    config, params = read(tmp_path / "a")
    hf.write(tmp_path / "b", config, params)
    hf.write(tmp_path / "b", config, params, shard_bytes=30_000)
    files = sorted(path.name for path in (tmp_path / "b").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors" and len(files) > 2
    assert all((tmp_path / "b" / file).stat().st_size < 35_000 for file in files)
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    assert set(index["weight_map"]) == set(shapes_of("llama"))
    assert_same(params, read(tmp_path / "b")[1])
    hf.write(tmp_path / "b", config, params)  # the shards go, or they would be read instead
    assert [path.name for path in (tmp_path / "b").glob("*.safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize(
    "name, old, new", [("gpt2", "transformer.", ""), ("llama", "model.", ""),
                       ("gemma3_text", "model.", "model.language_model."),
                       ("gemma3_text", "model.", "language_model.model.")]
)  # fmt: skip
def test_names_of_the_modules_around_are_left_out(tmp_path, name, old, new):
    tensors = make(tmp_path / "a", name)
    renamed = {key.replace(old, new, 1): value for key, value in tensors.items()}
    make(tmp_path / "b", name, renamed)
    assert_same(read(tmp_path / "a")[1], read(tmp_path / "b")[1])


def test_what_is_not_needed_is_not_asked_for(tmp_path):
    extra, tensors = np.zeros(3, np.float32), random_tensors("gpt2")
    make(tmp_path / "a", "gpt2", tensors | {
        "transformer.h.0.attn.bias": extra,
        "transformer.h.0.attn.masked_bias": extra,
        "lm_head.weight": tensors["transformer.wte.weight"],
    })  # fmt: skip
    assert read(tmp_path / "a")[0].tied
    inverse = {"model.layers.0.self_attn.rotary_emb.inv_freq": extra}
    make(tmp_path / "b", "llama", random_tensors("llama") | inverse)
    read(tmp_path / "b")


@pytest.mark.parametrize("name, table", [("llama_tied", "model.embed_tokens.weight"),
                                         ("gpt2", "transformer.wte.weight")])  # fmt: skip
def test_a_tied_model_with_a_head_of_its_own_is_untied(tmp_path, name, table):
    tensors = random_tensors(name)
    make(tmp_path / "a", name, tensors | {"lm_head.weight": 2 * tensors[table]})
    config, params = read(tmp_path / "a")
    assert not config.tied
    np.testing.assert_array_equal(params["head"]["kernel"], 2 * tensors[table].T)
    hf.write(tmp_path / "b", config, params)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["tie_word_embeddings"] is False
    assert {table, "lm_head.weight"} <= load_file(tmp_path / "b" / "model.safetensors").keys()
    assert_same(read(tmp_path / "b")[1], params)


def test_a_tied_table_may_have_the_heads_name(tmp_path):
    tensors = make(tmp_path / "a", "gpt2")
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    make(tmp_path / "b", "gpt2", tensors)
    assert_same(read(tmp_path / "a")[1], read(tmp_path / "b")[1])
    tensors = make(tmp_path / "c", "llama")
    del tensors["model.embed_tokens.weight"]
    make(tmp_path / "d", "llama", tensors)
    with pytest.raises(UserError, match="tensor 'model.embed_tokens.weight' .* is missing"):
        read(tmp_path / "d")  # which is not tied


def test_gemma3_with_images_is_read_as_its_text_half(tmp_path):
    image = {"vision_tower.vision_model.x.weight": np.zeros(3, np.float32)}
    make(tmp_path, "gemma3_text", random_tensors("gemma3_text") | image)
    text = config_of("gemma3_text")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    )
    config, _ = read(tmp_path)
    assert config.family == "gemma3_text"
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 106]}))
    assert read(tmp_path)[0].eos_ids == (1, 106)


def test_config_of_gemma3(tmp_path):
    make(tmp_path, "gemma3_text", num_hidden_layers=12, sliding_window=512,
         sliding_window_pattern=None)  # fmt: skip
    config = hf.read_config(tmp_path)
    assert config.window_layers == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
    assert (config.rope_base, config.local_rope_base) == (1e6, 1e4)
    assert config.rope_scaling == (("factor", 8.0), ("rope_type", "linear"))
    assert config.embed_scale == D**0.5 and config.query_scale == 256**-0.5


def test_no_cap_is_written_as_none(tmp_path):
    make(tmp_path / "a", "gemma3_text")
    hf.write(tmp_path / "b", *read(tmp_path / "a"))
    raw = json.loads((tmp_path / "b" / "config.json").read_text())
    assert raw["final_logit_softcapping"] is None  # 0 would make every logit 0


def test_newer_rope_parameters_mean_the_same(tmp_path):
    make(tmp_path / "a", "llama")
    make(tmp_path / "b", "llama", rope_theta=None, rope_scaling=None,
         rope_parameters=CONFIGS["llama"]["rope_scaling"] | {"rope_theta": 5e5})  # fmt: skip
    assert hf.read_config(tmp_path / "a") == hf.read_config(tmp_path / "b")
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    local = {"rope_type": "default", "rope_theta": 2e4}
    make(tmp_path / "c", "gemma3_text", rope_local_base_freq=2e4)
    make(tmp_path / "d", "gemma3_text", rope_scaling=None,
         rope_parameters={"full_attention": linear, "sliding_attention": local})  # fmt: skip
    assert hf.read_config(tmp_path / "c") == hf.read_config(tmp_path / "d")


def test_end_of_turn_comes_from_the_generation_config(tmp_path):
    make(tmp_path, "llama")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert hf.read_config(tmp_path).eos_ids == (7, 9)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not known; known: bart, bert,"),
        ({"hidden_act": "tanh"}, "activation 'tanh'; known: silu"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "'longrope' is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized by 'gptq'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"intermediate_size": 65}, r"gate_proj.weight' has shape \[64, 32\], .* \[65, 32\]"),
        ({"num_hidden_layers": 3}, r"'model.layers.2.*' \[32\] is missing \(9 of 30 are\)"),
        ({"num_hidden_layers": 1}, r"'model.layers.1.* is in the file, but"),
        ({"num_attention_heads": "4"}, "num_attention_heads='4' must be a whole number"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings=0 must be true or false"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5' must be a number"),
        ({"num_attention_heads": 3, "head_dim": None, "num_key_value_heads": 3},
         "num_attention_heads=3 must divide hidden_size=32"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"eos_token_id": "3"}, "config.json: eos_token_id='3' must be a token id or a list"),
        ({"eos_token_id": [3, "4"]}, r"config.json: eos_token_id=\[3, '4'\] must be"),
        ({"rope_scaling": {"type": "linear"}}, "type 'linear' has factor=None; give it a number"),
        ({"rope_scaling": {"type": "yarn"}}, "type 'yarn' has factor=None; give it a number"),
        ({"architectures": ["LlamaForSequenceClassification"]},
         "architectures says 'LlamaForSequenceClassification', which is not supported; use a model "
         "of LlamaForCausalLM"),
        ({"architectures": ["LlamaForTokenClassification"]}, "'LlamaForTokenClassification'"),
        ({"architectures": ["LlamaForQuestionAnswering"]}, "'LlamaForQuestionAnswering'"),
    ],
)  # fmt: skip
def test_config_errors(tmp_path, change, words):
    make(tmp_path, "llama", **change)
    with pytest.raises(UserError, match=words):
        load(tmp_path)


def test_a_missing_size_is_named(tmp_path):
    make(tmp_path, "llama")
    raw = config_of("llama")
    del raw["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="'hidden_size' is missing; a llama model needs it"):
        load(tmp_path)


def test_a_value_the_family_has_no_word_for_is_refused(tmp_path):
    make(tmp_path / "a", "mistral")
    config, params = read(tmp_path / "a")
    odd = config.__class__(**config.__dict__ | {"qkv_bias": True})
    with pytest.raises(UserError, match="mistral config.json cannot express qkv_bias=True"):
        hf.write(tmp_path / "b", odd, params)
    assert not (tmp_path / "b").exists()


def damage(file):
    def cut(folder):
        path = folder / file
        path.write_bytes(path.read_bytes()[:-100])

    return cut


def spoil_index(folder):
    make(folder / "single", "llama")
    config, params = read(folder / "single")
    hf.write(folder, config, params, shard_bytes=30_000)
    sorted(folder.glob("model-*"))[1].unlink()


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda d: (d / "config.json").unlink(), "config.json does not exist"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors does not exist"),
        (lambda d: (d / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
        (damage("model.safetensors"), "model.safetensors is damaged"),
        (spoil_index, "model-00002-of-.* does not exist"),
        (lambda d: (d / "config.json").write_text("[]"), "config.json holds no JSON object but"),
        (lambda d: (d / "generation_config.json").write_text("[]"), "generation_config.json holds"),
        (lambda d: (d / "generation_config.json").write_text('{"eos_token_id": "3"}'),
         "generation_config.json: eos_token_id='3' must be"),
        (lambda d: (d / "model.safetensors.index.json").write_text("{}"),
         "model.safetensors.index.json has no 'weight_map'"),
    ],
)  # fmt: skip
def test_missing_and_damaged_files(tmp_path, spoil, words):
    make(tmp_path, "llama")
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    "source, words",
    [
        ("nowhere/at/all", "does not exist"),
        ("ftp://a/b", "unknown scheme"),
        ("package:rotten_tomatoes", "holds data, not a model"),
    ],
)
def test_source_errors(monkeypatch, source, words):
    monkeypatch.setattr("lmlite.data.packages.members", lambda name: ())
    with pytest.raises(UserError, match=words):
        load(source)


def test_unknown_dtype(tmp_path):
    with pytest.raises(UserError, match="dtype 'int8' is not known"):
        load(tmp_path, "int8")


def test_unreachable_hub(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route\nmore lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match=r"^cannot fetch hf://a/b@c: no route$"):
        load("hf://a/b@c")


def test_the_hub_is_not_asked_for_copies(monkeypatch):
    def listed(repository, revision, **patterns):
        files = ["config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors"]
        raise OSError(" ".join(filter_repo_objects(files, **patterns)))

    monkeypatch.setattr("huggingface_hub.snapshot_download", listed)
    with pytest.raises(UserError, match=": config.json model-00001-of-00002.safetensors$"):
        load("hf://a/b")


MEASURE = """
import re, sys, jax
from lmlite.models import hf
def peak():  # not ru_maxrss, which counts what the parent held before exec
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
config = hf.read_config(sys.argv[1])
jax.block_until_ready(jax.numpy.zeros(3) + 1)
before = peak()
params = jax.block_until_ready(hf.read_params(sys.argv[1], config))
size = sum(x.nbytes for x in jax.tree.leaves(params))
print((peak() - before) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("vocab", [1000, 40000])  # many like tensors, and one great one
def test_memory_while_loading(tmp_path, vocab):
    sizes = {"vocab_size": vocab, "hidden_size": 512, "intermediate_size": 4096}
    config = config_of("llama_tied") | sizes | {"head_dim": 128}
    new = {V: vocab, D: 512, F: 4096, 4 * H: 512, 2 * H: 256}
    tensors = {}
    for key, shape in shapes_of("llama_tied").items():
        shape = tuple(new[n] for n in shape)
        if "q_proj" in key or "o_proj" in key:
            shape = (512, 512)
        tensors[key] = np.ones(shape, np.float32)
    make(tmp_path, "llama_tied", tensors, **config)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3
