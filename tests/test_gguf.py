"""GGUF files, written here with the names and the row order of llama.cpp's converter."""

import gguf as ggml
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import CONFIGS, D, F, H, make, random_tensors, read

import lmlite.models.gguf as gguf
from lmlite.errors import UserError
from lmlite.models import gguf_file
from lmlite.models.load import load

GGUF_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def interleave(rows, heads):
    """Half-split rows -> the neighbouring pairs that llama.cpp's converter writes."""
    out = np.empty_like(rows)
    for head in range(heads):
        for i in range(H // 2):
            out[head * H + 2 * i] = rows[head * H + i]
            out[head * H + 2 * i + 1] = rows[head * H + H // 2 + i]
    return out


def write_gguf(path, tensors, kind=ggml.GGMLQuantizationType.F32, arch="llama", extra=()):
    writer = ggml.GGUFWriter(path, arch)
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(H)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(500000.0)
    if arch.startswith("gemma"):
        writer.add_sliding_window(4096)
    names = GGUF_NAMES | (GEMMA_NAMES if arch.startswith("gemma") else {})
    for key, value in tensors.items():
        parts = key.removeprefix("model.").removesuffix(".weight").split(".")
        layer, module = (parts[1], ".".join(parts[2:])) if parts[0] == "layers" else ("", parts[0])
        if arch == "llama" and module.endswith(("q_proj", "k_proj")):
            value = interleave(value, len(value) // H)
        if arch.startswith("gemma") and value.ndim == 1:
            value = value + 1
        name = f"blk.{layer}.{names[module]}" if layer else names[module]
        use = kind if value.ndim == 2 else ggml.GGMLQuantizationType.F32
        writer.add_tensor(name + ".weight", ggml.quants.quantize(value, use), raw_dtype=use)
    for name, value in extra:
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path):
    file = gguf_file.read(path)
    config = gguf.read_config(file)
    return config, gguf.read_params(file, config)


def distances(one, two):
    return jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, two)


@pytest.mark.parametrize("name, arch", [("llama", "llama"), ("llama_tied", "llama"),
                                        ("qwen3", "qwen3"), ("gemma3_text", "gemma3")])  # fmt: skip
def test_gguf_equals_the_directory(tmp_path, name, arch):
    tensors = make(tmp_path, name, rope_scaling=None, rope_theta=5e5, eos_token_id=None)
    write_gguf(tmp_path / "m.gguf", tensors, arch=arch)
    config, params = read_gguf(tmp_path / "m.gguf")
    expected, expected_params = read(tmp_path)
    ids = {"bos_id": None, "eos_ids": (), "pad_id": None}  # they come with the tokenizer
    same = expected.__class__(**expected.__dict__ | ids)
    if arch == "gemma3":  # the writer of the directory chose another scalar
        same = expected.__class__(**same.__dict__ | {"query_scale": 0.0})
    assert config == same
    assert max(jax.tree.leaves(distances(params, expected_params))) < 1e-6


@pytest.mark.parametrize("kind, error", [("Q8_0", 0.03), ("Q4_1", 0.4), ("F16", 2e-3)])
def test_gguf_quantized(tmp_path, kind, error):
    tensors = make(tmp_path, "llama")
    write_gguf(tmp_path / "m.gguf", tensors, ggml.GGMLQuantizationType[kind])
    _, params = read_gguf(tmp_path / "m.gguf")
    largest = max(jax.tree.leaves(distances(params, read(tmp_path)[1])))
    assert 0 < largest < error


def test_gguf_of_llama3_tells_its_rope_scaling_by_a_tensor(tmp_path):
    wave = 2 * np.pi * 500000.0 ** (np.arange(0, H, 2) / H)  # positions a turn
    blend = np.clip((8192 / wave - 1.0) / 3.0, 0, 1)
    factors = (1 / ((1 - blend) / 8 + blend)).astype(np.float32)
    tensors = random_tensors("llama")
    write_gguf(tmp_path / "m.gguf", tensors, extra=[("rope_freqs.weight", factors)])
    config, _ = read_gguf(tmp_path / "m.gguf")
    told = CONFIGS["llama"]["rope_scaling"] | {"original_max_position_embeddings": 8192}
    assert dict(config.rope_scaling) == told
    write_gguf(tmp_path / "n.gguf", tensors, extra=[("rope_freqs.weight", factors[::-1].copy())])
    with pytest.raises(UserError, match="not Llama 3's rope scaling"):
        read_gguf(tmp_path / "n.gguf")


def test_gguf_errors(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(UserError, match="does not exist"):
        load(path)
    tensors = random_tensors("llama")
    write_gguf(path, tensors)
    whole = path.read_bytes()
    for size in (0, 3, 100, 1000, len(whole) - 1000):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="m.gguf (is not a whole GGUF file|does not exist)"):
            load(path)
    path.write_bytes(b"MZ" + whole[2:])
    with pytest.raises(UserError, match="not a whole GGUF file"):
        load(path)
    write_gguf(path, tensors, arch="falcon")
    with pytest.raises(UserError, match="GGUF architecture 'falcon' is not known; known: llama"):
        load(path)
    del tensors["model.norm.weight"]
    write_gguf(path, tensors)
    with pytest.raises(UserError, match="tensor 'output_norm.weight' .* is missing"):
        load(path)
    del tensors["model.embed_tokens.weight"]
    write_gguf(path, tensors)
    with pytest.raises(UserError, match="without a tensor 'token_embd.weight'"):
        load(path)


def test_what_ends_a_turn_ends_a_text():
    told = {"tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 4}
    tokens = ["<pad>", "<eos>", "a", "<end_of_turn>", "<|eot_id|>"]
    assert gguf._ends(told | {"tokenizer.ggml.tokens": tokens}) == [1, 4, 3]
    assert gguf._ends({"tokenizer.ggml.tokens": tokens[:3]}) is None
    ends = ["<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"]
    assert sorted(gguf._ends({"tokenizer.ggml.tokens": tokens[:3] + ends})) == [3, 4, 5]
