"""Makes peft/: adapter directories that PEFT writes for tiny random models, and peft.npz, logits.

    pip install torch transformers peft && python tests/references/make_peft.py

Base models are cases of `tests/parity.py`, whose weights need not be stored; adapter weights are
random, so that no term is zero. peft.npz holds 'CASE' -> logits of the base model under it.
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import peft
import torch
import transformers as hf

sys.path.append(str(Path(__file__).parents[1]))
from parity import IDS, REFERENCES, TARGET_IDS, cases, write  # noqa: E402

CLASSES = {
    "llama": hf.LlamaForCausalLM,
    "gemma2": hf.Gemma2ForCausalLM,
    "gpt2": hf.GPT2LMHeadModel,
    "bert": hf.BertForMaskedLM,
    "roberta": hf.RobertaForMaskedLM,
    "distilbert": hf.DistilBertForMaskedLM,
    "t5": hf.T5ForConditionalGeneration,
    "t5_v1_1": hf.T5ForConditionalGeneration,
    "bart": hf.BartForConditionalGeneration,
}
VIRTUAL = dict(task_type="CAUSAL_LM", num_virtual_tokens=3)
ENCODED = dict(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
PAIRED = dict(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
# What PEFT does not find in a DistilBERT, and finds of the encoder where the decoder's is meant.
SIZES = dict(num_layers=3, num_attention_heads=4, token_dim=32)
HEADS = dict(num_attention_heads=2)
DOWN = dict(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])


def lora(targets, **fields):
    """LoRA of rank 2."""
    return peft.LoraConfig(**{"r": 2, "lora_alpha": 6, **fields}, target_modules=targets)


# Case -> base model and configuration.
CASES = {
    "llama-lora": ("llama", lora(["q_proj", "v_proj", "down_proj"],
        rank_pattern={"q_proj": 3, r"layers.1.*down_proj": 1}, alpha_pattern={"v_proj": 5})),
    "llama-rslora": ("llama", lora(r".*layers\.[12]\..*(gate|up)_proj", use_rslora=True, r=3)),
    "llama-head": ("llama", lora(["lm_head"])),
    "llama-dora": ("llama", lora("all-linear", use_dora=True)),
    "llama-ia3": ("llama", peft.IA3Config(**DOWN)),
    "llama-prompt": ("llama", peft.PromptTuningConfig(**VIRTUAL)),
    "llama-prefix": ("llama", peft.PrefixTuningConfig(**VIRTUAL)),
    "llama-p-tuning": ("llama", peft.PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=6)),
    "gemma2-lora": ("gemma2", lora("all-linear")),
    "gemma2-prompt": ("gemma2", peft.PromptTuningConfig(**VIRTUAL)),
    "gpt2-lora": ("gpt2", lora(["c_attn", "mlp.c_proj"], fan_in_fan_out=True)),
    "gpt2-dora": ("gpt2", lora(["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=True)),
    "gpt2-ia3": ("gpt2", peft.IA3Config(target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True)),
    "gpt2-prompt": ("gpt2", peft.PromptTuningConfig(**VIRTUAL)),
    "gpt2-prefix": ("gpt2", peft.PrefixTuningConfig(**VIRTUAL)),
    "bert-lora": ("bert", lora(["query", "value"])),
    "bert-dora": ("bert", lora(["query", "intermediate.dense"], use_dora=True)),
    "bert-ia3": ("bert", peft.IA3Config(target_modules=["key", "value", "output.dense"],
        feedforward_modules=["output.dense"])),
    "roberta-lora": ("roberta", lora(["query", "value", "dense"])),
    "distilbert-lora": ("distilbert", lora(["q_lin", "lin2"])),
    "t5-lora": ("t5", lora(["q", "v"], task_type="SEQ_2_SEQ_LM")),
    "t5-rslora": ("t5", lora(["EncDecAttention.k", "wo"], use_rslora=True)),
    "t5_v1_1-dora": ("t5_v1_1", lora("all-linear", use_dora=True)),
    "t5-ia3": ("t5", peft.IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])),
    "bart-lora": ("bart", lora(["q_proj", "fc1", "out_proj"])),
    "bert-prompt": ("bert", peft.PromptTuningConfig(**ENCODED)),
    "bert-prefix": ("bert", peft.PrefixTuningConfig(**ENCODED)),
    "bert-p-tuning": ("bert", peft.PromptEncoderConfig(**ENCODED, encoder_hidden_size=6)),
    "roberta-prompt": ("roberta", peft.PromptTuningConfig(**ENCODED)),
    "roberta-prefix": ("roberta", peft.PrefixTuningConfig(**ENCODED)),
    "distilbert-prompt": ("distilbert", peft.PromptTuningConfig(**ENCODED, **SIZES)),
    "t5-prompt": ("t5", peft.PromptTuningConfig(**PAIRED)),
    "t5-prefix": ("t5", peft.PrefixTuningConfig(**PAIRED, **SIZES)),
    "t5-p-tuning": ("t5", peft.PromptEncoderConfig(**PAIRED, encoder_hidden_size=6)),
    "bart-prompt": ("bart", peft.PromptTuningConfig(**PAIRED)),
    "bart-prefix": ("bart", peft.PrefixTuningConfig(**PAIRED, **SIZES | HEADS)),
}  # fmt: skip


def base(case: str, folder: Path):
    """The case's model, as `transformers` opens it."""
    spec = cases()[case]
    write(folder, spec["config"], spec["shapes"])
    return CLASSES[case].from_pretrained(folder).eval()


def logits(model) -> np.ndarray:
    """Of the parity inputs, without the virtual tokens."""
    inputs = {"input_ids": torch.from_numpy(IDS)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.from_numpy(TARGET_IDS)
    with torch.no_grad():
        found = model(**inputs).logits.numpy()
    return found[:, -(TARGET_IDS if model.config.is_encoder_decoder else IDS).shape[1] :]


def main() -> None:
    """Writes every case."""
    torch.manual_seed(0)
    arrays = {}
    for case, (name, config) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            plain = base(name, Path(folder))
            before = logits(plain)
            model = peft.get_peft_model(plain, config).eval()
            model.peft_config["default"].base_model_name_or_path = name
            for parameter_name, p in model.named_parameters():
                if p.requires_grad:
                    around = 1.0 if re.search("magnitude|ia3", parameter_name) else 0.0
                    torch.nn.init.normal_(p, around, 0.3)
            arrays[case] = logits(model)
            model.save_pretrained(REFERENCES / "peft" / case, save_embedding_layers=False)
        (REFERENCES / "peft" / case / "README.md").unlink()
        print(case, np.abs(before - arrays[case]).max())
    np.savez_compressed(REFERENCES / "peft.npz", **arrays)


if __name__ == "__main__":
    main()
