"""Makes tokenizer_smollm2.json: what `transformers` gives for texts that are easy to get wrong.

    python tests/references/make_tokenizer.py FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf

needs transformers, gguf and jinja2. It rebuilds the tokenizer from the GGUF as well, but leaves
out what `tokenizer.ggml.pre = smollm` says, that digits are split one by one before anything else;
that step is put in front here.
"""

import json
import sys
from pathlib import Path

from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import AutoTokenizer

TEXTS = [
    "The capital of France is",
    "In 1998, 12345 people paid $3.50 each.",
    "a  12   345 b",
    "line one\nline two\n\n\nline five",
    "\ttabs\t\tand trailing spaces   ",
    "   leading spaces",
    "don't we'll I'M they'RE",
    "Crème brûlée, naïve façade, Ǻ and cafe\u0301",
    "日本語のテキスト、中文文本。",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 done",
    "½ ² ٣ Ⅷ numbers that are not ASCII",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|>",
    "def f(x):\n    return x[1:-1]  # comment",
    "zero\u200bwidth\u00a0space\r\nwindows",
    "",
    " ",
]
CHATS = [
    [{"role": "user", "content": "What is 12 + 30?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello  "},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "bye"},
    ],
]


def main(path: Path):
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    texts = [{"text": text, "ids": tokenizer.encode(text)} for text in TEXTS]
    chats = []
    for messages in CHATS:
        prompts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)
            for add in (True, False)
        ]
        ids = tokenizer.encode(prompts[0], add_special_tokens=False)
        chats.append({"messages": messages, "prompt": prompts[0], "bare": prompts[1], "ids": ids})
    content = json.dumps({"texts": texts, "chats": chats}, indent=1)
    Path(__file__).with_name("tokenizer_smollm2.json").write_text(content + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
