"""Makes methods.npz: logits of a tiny random Llama under PEFT adapters, with all their weights.

    pip install torch transformers peft && python tests/references/make_methods.py

Keys are 'base/PATH' and 'METHOD/PATH' for lmlite's parameter paths (kernels [in, out]), and
'METHOD/logits' for the result on 'ids'. Adapter weights are random, so that no term is zero.
'METHOD/gradient/PATH' is that of the mean next-token loss.
"""

import re
from pathlib import Path

import numpy as np
import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

P = 3  # virtual tokens
SIZES = LlamaConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, intermediate_size=24, max_position_embeddings=64,
    tie_word_embeddings=True, attention_bias=True, initializer_range=0.3,
)  # fmt: skip
MODULES = {f"{name}_proj": f"attn/{name}" for name in "qkvo"}
MODULES |= {f"{name}_proj": f"mlp/{name}" for name in ("gate", "up", "down")}
MODULES |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm"}
LEAVES = {
    "weight": "kernel", "bias": "bias", "lora_A.weight": "lora_a", "lora_B.weight": "lora_b",
    "lora_magnitude_vector": "magnitude", "vera_lambda_d": "vera_d", "vera_lambda_b": "vera_b",
}  # fmt: skip
QV = ["q_proj", "v_proj"]
LORA = dict(task_type="CAUSAL_LM", target_modules=[*QV, "down_proj"], r=4, lora_alpha=6)
VIRTUAL = dict(task_type="CAUSAL_LM", num_virtual_tokens=P)
METHODS = {
    "lora": peft.LoraConfig(**LORA, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 5}),
    "rslora": peft.LoraConfig(**LORA, use_rslora=True),
    "dora": peft.LoraConfig(**LORA, use_dora=True),
    "vera": peft.VeraConfig(task_type="CAUSAL_LM", target_modules=QV, r=5, save_projection=True),
    "ia3": peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "prompt_tuning": peft.PromptTuningConfig(**VIRTUAL),
    "prefix_tuning": peft.PrefixTuningConfig(**VIRTUAL),
    "encoded_prefix": peft.PrefixTuningConfig(
        **VIRTUAL, prefix_projection=True, encoder_hidden_size=6,
        token_dim=8, num_attention_heads=2,
    ),
    "p_tuning_mlp": peft.PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=6),
    "p_tuning_lstm": peft.PromptEncoderConfig(
        **VIRTUAL, encoder_hidden_size=6, encoder_reparameterization_type="LSTM",
    ),
}  # fmt: skip


def base(model) -> dict[str, np.ndarray]:
    """The model's own weights under lmlite's paths."""
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "model.embed_tokens.weight":
            found["embed/embedding"] = tensor.numpy()
        elif name == "model.norm.weight":
            found["norm/scale"] = tensor.numpy()
        elif name != "lm_head.weight":
            _, _, layer, *_, module, leaf = name.split(".")
            leaf = "scale" if module.endswith("norm") else LEAVES[leaf]
            array = tensor.numpy().T if leaf == "kernel" else tensor.numpy()
            found[f"layers_{layer}/{MODULES[module]}/{leaf}"] = array
    return found


def adapter(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The adapter's weights under lmlite's paths."""
    found = {}
    for name, tensor in state.items():
        array = tensor.detach().numpy()
        if match := re.search(r"layers\.(\d+)\.\w+\.(\w+)\.([\w.]+)$", name):
            layer, module, leaf = match.groups()
            leaf = leaf.replace(".default", "")
            if leaf == "ia3_l":
                leaf, array = "ia3_in" if module == "down_proj" else "ia3_out", array.ravel()
            else:
                leaf = LEAVES[leaf]
            found[f"layers_{layer}/{MODULES[module]}/{leaf}"] = array.T
        elif match := re.search(r"vera_([AB])", name):
            found[f"vera/{match[1].lower()}"] = array.T
    return found


def encoder(model, kind: str) -> dict[str, np.ndarray]:
    """A prompt encoder's weights under lmlite's paths."""
    p = {name: t.detach().numpy() for name, t in model.prompt_encoder.default.named_parameters()}
    if kind == "prompt_tuning":
        return {"embed/prompt": p["embedding.weight"]}
    if kind == "prefix_tuning":
        pairs = p["embedding.weight"].reshape(P, 2, 2, 2, 4)
        return {
            f"layers_{i}/attn/prefix_{name}": pairs[:, i, j]
            for i in (0, 1)
            for j, name in enumerate(("key", "value"))
        }
    if kind == "encoded_prefix":
        found = {"embedding": p["embedding.weight"]}
        for i, layer in enumerate(("transform.0", "transform.2")):
            found[f"kernel_{i}"] = p[f"{layer}.weight"].T
            found[f"bias_{i}"] = p[f"{layer}.bias"]
        return {f"embed/prefix/{name}": array for name, array in found.items()}
    found = {"embedding": p["embedding.weight"]}
    linears = sorted({name.rsplit(".", 1)[0] for name in p if name.startswith("mlp_head")})
    for i, layer in enumerate(linears):
        found[f"mlp_{i}/kernel"] = p[f"{layer}.weight"].T
        found[f"mlp_{i}/bias"] = p[f"{layer}.bias"]
    if kind == "p_tuning_lstm":
        for i in (0, 1):
            for direction, ending in (("forward", ""), ("backward", "_reverse")):
                weights = [p[f"lstm_head.weight_{w}_l{i}{ending}"].T for w in ("ih", "hh")]
                biases = [p[f"lstm_head.bias_{w}_l{i}{ending}"] for w in ("ih", "hh")]
                found[f"lstm_{i}_{direction}/kernel"] = np.concatenate(weights)
                found[f"lstm_{i}_{direction}/bias"] = sum(biases)
    return {f"embed/encoder/{name}": array for name, array in found.items()}


def gradients(model, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """Of the mean next-token loss, by the adapter's weights under lmlite's paths."""
    model(ids, labels=ids).loss.backward()
    named = {
        name.replace("vector.default.weight", "vector"): p.grad
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return adapter(named)


def main() -> None:
    torch.manual_seed(0)
    plain = LlamaForCausalLM(SIZES).eval()
    for name, p in plain.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.3)
    weights = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    ids = torch.randint(0, SIZES.vocab_size, (2, 7))
    out = {"ids": ids.numpy()} | {f"base/{path}": a for path, a in base(plain).items()}
    out["base/logits"] = plain(ids).logits.detach().numpy()
    for kind, config in METHODS.items():
        model = LlamaForCausalLM(SIZES)
        model.load_state_dict(weights)
        model = peft.get_peft_model(model, config).eval()
        for name, p in model.named_parameters():
            if p.requires_grad:
                around = 1.0 if re.search("magnitude|ia3|vera_lambda_d", name) else 0.0
                torch.nn.init.normal_(p, around, 0.3)
        if kind in ("lora", "rslora", "dora", "vera", "ia3"):
            found = adapter(peft.get_peft_model_state_dict(model))
        else:
            found = encoder(model, kind)
        out |= {f"{kind}/{path}": array for path, array in found.items()}
        if kind in ("lora", "rslora", "dora", "ia3"):
            out |= {f"{kind}/gradient/{path}": g for path, g in gradients(model, ids).items()}
        out[f"{kind}/logits"] = model(ids).logits.detach().numpy()[:, -ids.shape[1] :]
    np.savez_compressed(Path(__file__).with_name("methods.npz"), **out)


if __name__ == "__main__":
    main()
