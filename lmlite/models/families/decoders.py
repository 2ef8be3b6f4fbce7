"""Decoders: Llama and its relatives, Gemma, GPT-2."""

from collections.abc import Callable

from lmlite.models.families.family import Family

_LLAMA_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "hidden": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "tied": "tie_word_embeddings",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}
_BIAS_FIELDS = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
_GEMMA_FIELDS = _LLAMA_FIELDS | _BIAS_FIELDS | {
    "activation": "hidden_activation",
    "attn_soft_cap": "attn_logit_softcapping",
    "final_soft_cap": "final_logit_softcapping",
}  # fmt: skip
_GPT2_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "hidden": "n_inner",
    "max_positions": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "activation": "activation_function",
    "tied": "tie_word_embeddings",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}
_LLAMA_DEFAULTS = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "rope_theta": 10000.0,
}
_QWEN_DEFAULTS = _LLAMA_DEFAULTS | {
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "layer_types": None,
}
_GEMMA_DEFAULTS = _LLAMA_DEFAULTS | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "sliding_window": 4096,
    "layer_types": None,
}
_GPT2_DEFAULTS = {
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "pad_token_id": None,
}

_LLAMA_MODULES = {
    "embed": "model.embed_tokens",
    "layers_{i}/attn_norm": "model.layers.{i}.input_layernorm",
    "layers_{i}/attn/q": "model.layers.{i}.self_attn.q_proj",
    "layers_{i}/attn/k": "model.layers.{i}.self_attn.k_proj",
    "layers_{i}/attn/v": "model.layers.{i}.self_attn.v_proj",
    "layers_{i}/attn/o": "model.layers.{i}.self_attn.o_proj",
    "layers_{i}/attn/q_norm": "model.layers.{i}.self_attn.q_norm",
    "layers_{i}/attn/k_norm": "model.layers.{i}.self_attn.k_norm",
    "layers_{i}/mlp_norm": "model.layers.{i}.post_attention_layernorm",
    "layers_{i}/mlp/gate": "model.layers.{i}.mlp.gate_proj",
    "layers_{i}/mlp/up": "model.layers.{i}.mlp.up_proj",
    "layers_{i}/mlp/down": "model.layers.{i}.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
_GEMMA_MODULES = _LLAMA_MODULES | {
    "layers_{i}/attn_post_norm": "model.layers.{i}.post_attention_layernorm",
    "layers_{i}/mlp_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "layers_{i}/mlp_post_norm": "model.layers.{i}.post_feedforward_layernorm",
}
_GPT2_MODULES = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "layers_{i}/attn_norm": "transformer.h.{i}.ln_1",
    "layers_{i}/attn/q": "transformer.h.{i}.attn.c_attn",
    "layers_{i}/attn/k": "transformer.h.{i}.attn.c_attn",
    "layers_{i}/attn/v": "transformer.h.{i}.attn.c_attn",
    "layers_{i}/attn/o": "transformer.h.{i}.attn.c_proj",
    "layers_{i}/mlp_norm": "transformer.h.{i}.ln_2",
    "layers_{i}/mlp/up": "transformer.h.{i}.mlp.c_fc",
    "layers_{i}/mlp/down": "transformer.h.{i}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}


def _all_layers(raw: dict) -> list[int]:
    return list(range(raw["num_hidden_layers"]))


def _upper_layers(raw: dict) -> list[int]:
    used = raw["use_sliding_window"]
    return list(range(raw["max_window_layers"], raw["num_hidden_layers"])) if used else []


def _all_but_every(n: int) -> Callable[[dict], list[int]]:
    def local(raw):
        period = raw.get("sliding_window_pattern") or n
        return [i for i in range(raw["num_hidden_layers"]) if (i + 1) % period]

    return local


DECODERS = {
    "llama": Family(
        "LlamaForCausalLM",
        defaults=_LLAMA_DEFAULTS,
        modules=_LLAMA_MODULES,
        fields=_LLAMA_FIELDS | _BIAS_FIELDS | {"mlp_bias": "mlp_bias"},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        defaults=_LLAMA_DEFAULTS | {"sliding_window": 4096},
        fields=_LLAMA_FIELDS,
        modules=_LLAMA_MODULES,
        local=_all_layers,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        defaults=_QWEN_DEFAULTS,
        fields=_LLAMA_FIELDS,
        modules=_LLAMA_MODULES,
        fixed={"qkv_bias": True},
        local=_upper_layers,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
        fields=_LLAMA_FIELDS | _BIAS_FIELDS,
        modules=_LLAMA_MODULES,
        fixed={"qk_norm": True},
        local=_upper_layers,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        defaults=_GEMMA_DEFAULTS
        | {
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        fields=_GEMMA_FIELDS,
        fixed={"norm_offset": 1.0, "post_norms": True},
        modules=_GEMMA_MODULES,
        local=_all_but_every(2),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        defaults=_GEMMA_DEFAULTS
        | {
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
        },
        fields=_GEMMA_FIELDS,
        fixed={"norm_offset": 1.0, "post_norms": True, "qk_norm": True},
        modules=_GEMMA_MODULES,
        local=_all_but_every(6),
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        defaults=_GPT2_DEFAULTS,
        fields=_GPT2_FIELDS,
        fixed={
            "norm": "layer",
            "gated": False,
            "position": "learned",
            "qkv_bias": True,
            "out_bias": True,
            "mlp_bias": True,
        },
        modules=_GPT2_MODULES,
        input_first=True,
    ),
}
