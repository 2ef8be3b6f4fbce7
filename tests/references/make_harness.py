"""Makes harness.json: a tiny Llama's shapes and tokenizer, and what lm-evaluation-harness's Hugging
Face backend answers for it.

    pip install torch transformers lm-eval && python tests/references/make_harness.py
"""

import json
import sys
import tempfile
from pathlib import Path
from string import ascii_lowercase

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parents[1]))
from harness_cases import LENGTH, LONG, STORED, answers, scores, write_model  # noqa: E402

SIZE = 64  # of the vocabulary: letters, so that what it writes is text
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer() -> dict:
    """A byte-level BPE that starts every text with <s>."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=["<s>", "</s>"], show_progress=False
    )
    backend.train_from_iterator([LONG, ascii_lowercase, "[A]\n\nB I"], trainer)
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    return json.loads(backend.to_str())


def spec() -> dict:
    """The model, without weights: `tests/parity.py` makes them."""
    size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(
        **size, num_key_value_heads=2, vocab_size=SIZE, max_position_embeddings=LENGTH,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    shapes = {k: list(v.shape) for k, v in LlamaForCausalLM(config).state_dict().items()}
    return {
        "config": {**config.to_diff_dict(), "architectures": ["LlamaForCausalLM"]},
        "shapes": shapes,
        "tokenizer": tokenizer(),
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "chat_template": CHAT,
        },
    }


def theirs(folder: Path, batch_size: int):
    """lm_eval's Hugging Face backend."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch_size)


def main() -> None:
    """Writes everything."""
    made = spec()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model", made)
        model = theirs(Path(folder) / "model", 4)
        made["answers"], made["scores"] = answers(model), scores(model, Path(folder))
    print(json.dumps({k: made[k] for k in ("answers", "scores")}, indent=1))
    STORED.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
