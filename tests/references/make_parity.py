"""Makes parity.json and parity.npz: tiny models of every family, as `transformers` computes them.

    pip install torch transformers && python tests/references/make_parity.py

Weights come from `tests/parity.py`, so they need not be stored.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from safetensors import safe_open

sys.path.append(str(Path(__file__).parents[1]))
from parity import IDS, NEW_TOKENS, PROMPT, REFERENCES, TARGET_IDS, write  # noqa: E402

SIZES = dict(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, max_position_embeddings=80,
)  # fmt: skip
GROUPED = SIZES | dict(num_key_value_heads=2, head_dim=16)
LLAMA3 = dict(
    rope_theta=5e5, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)  # fmt: skip
LOCAL_AND_GLOBAL = dict(
    full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
    sliding_attention=dict(rope_type="default", rope_theta=1e4),
)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)
T5 = dict(
    vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4,
    relative_attention_num_buckets=16, relative_attention_max_distance=30,
)  # fmt: skip
BART = dict(
    vocab_size=40, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=80,
)  # fmt: skip
GPT2 = dict(
    vocab_size=40, n_embd=32, n_head=4, n_positions=80, bos_token_id=0, eos_token_id=0
)  # fmt: skip
DISTILBERT = dict(
    vocab_size=40, dim=32, n_heads=4, hidden_dim=48, max_position_embeddings=64
)  # fmt: skip

# Case -> class, configuration, keys of config.json and tensors added as other versions write them.
CASES = {
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**GROUPED)),
    "llama3": (
        hf.LlamaForCausalLM,
        hf.LlamaConfig(
            **GROUPED,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters=LLAMA3,
        ),
    ),
    "llama_yarn": (hf.LlamaForCausalLM, hf.LlamaConfig(**GROUPED, rope_parameters=YARN)),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig(**GROUPED, sliding_window=6)),
    "qwen2": (
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config(
            **SIZES,
            num_key_value_heads=2,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
        ),
    ),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config(**GROUPED, tie_word_embeddings=True)),
    "gemma2": (
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config(
            **GROUPED,
            query_pre_attn_scalar=24,
            sliding_window=5,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
    ),
    "gemma3": (
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig(
            **GROUPED,
            sliding_window=5,
            sliding_window_pattern=3,
            rope_parameters=LOCAL_AND_GLOBAL,
        ),
    ),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config(**GPT2, n_layer=3)),
    "gpt2_untied": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(**GPT2, n_layer=1, tie_word_embeddings=False),
    ),
    "bert": (hf.BertForMaskedLM, hf.BertConfig(**SIZES)),
    "bert_pretraining": (hf.BertForPreTraining, hf.BertConfig(**SIZES)),
    "bert_untied": (hf.BertForMaskedLM, hf.BertConfig(**SIZES, tie_word_embeddings=False)),
    "bert_classifier": (hf.BertForSequenceClassification, hf.BertConfig(**SIZES, num_labels=3)),
    "bert_headless": (hf.BertModel, hf.BertConfig(**SIZES)),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig(**SIZES)),
    "roberta_classifier": (hf.RobertaForSequenceClassification, hf.RobertaConfig(**SIZES)),
    "xlm_roberta": (hf.XLMRobertaForMaskedLM, hf.XLMRobertaConfig(**SIZES)),
    "roberta_headless": (hf.RobertaModel, hf.RobertaConfig(**SIZES, pad_token_id=2)),
    "distilbert": (hf.DistilBertForMaskedLM, hf.DistilBertConfig(**DISTILBERT, n_layers=3)),
    "distilbert_classifier": (
        hf.DistilBertForSequenceClassification,
        hf.DistilBertConfig(**DISTILBERT, n_layers=1),
    ),
    "distilbert_headless": (hf.DistilBertModel, hf.DistilBertConfig(**DISTILBERT, n_layers=1)),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config(**T5)),
    "t5_v1_1": (
        hf.T5ForConditionalGeneration,
        hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        {"tie_word_embeddings": False, "scale_decoder_outputs": None},
        {"lm_head.weight": [40, 32]},
    ),
    "bart": (hf.BartForConditionalGeneration, hf.BartConfig(**BART, scale_embedding=True)),
}


def written(model) -> tuple[dict, dict[str, list[int]]]:
    """config.json and the shapes of the tensors that `transformers` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
    return config, shapes


def results(model) -> dict[str, np.ndarray]:
    """What the model gives for IDS: logits, or states and what the pooler makes of them."""
    inputs = {"input_ids": torch.from_numpy(IDS)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.from_numpy(TARGET_IDS)
    with torch.no_grad():
        out = model(**inputs)
    if model.config.architectures[0].endswith("SequenceClassification"):
        return {"classes": out["logits"].numpy()}
    names = {
        "logits": "logits", "prediction_logits": "logits", "pooler_output": "pooled",
        "encoder_last_hidden_state": "hidden", "last_hidden_state": "hidden",
    }  # fmt: skip
    found = {ours: out[name].numpy() for name, ours in names.items() if out.get(name) is not None}
    if model.can_generate() and "MaskedLM" not in model.config.architectures[0]:
        found["generated"] = generated(model)
    return found


def generated(model) -> np.ndarray:
    """NEW_TOKENS ids after PROMPT, greedy, with no id that ends a text."""
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    if model.config.is_encoder_decoder:
        start = getattr(model.config, "decoder_start_token_id", None)
        model.generation_config.decoder_start_token_id = 0 if start is None else start
    settings = dict(max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=False)
    with torch.no_grad():
        ids = model.generate(torch.from_numpy(PROMPT), **settings)
    return ids[0, -NEW_TOKENS:].numpy()


def main() -> None:
    """Writes both files."""
    stored, arrays = {}, {}
    for case, (cls, config, *more) in CASES.items():
        keys, tensors = more or ({}, {})
        raw, shapes = written(cls(config))
        raw = {key: value for key, value in (raw | keys).items() if value is not None}
        shapes |= tensors
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), raw, shapes)
            model, info = cls.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()), (case, info)
        found = results(model.eval())
        print(case, {name: float(np.abs(x).max()) for name, x in found.items()})
        stored[case] = {"config": raw, "shapes": shapes}
        arrays |= {f"{case}/{name}": array for name, array in found.items()}
    (REFERENCES / "parity.json").write_text(json.dumps(stored, indent=1) + "\n")
    np.savez(REFERENCES / "parity.npz", **arrays)


if __name__ == "__main__":
    main()
