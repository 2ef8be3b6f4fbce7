"""Makes generate_smollm2.json: what `transformers` generates with the weights that lmlite loads.

    python -c "import lmlite; lmlite.load('package:smollm2-135m-instruct').save('FOLDER')"
    python tests/references/make_generate.py FOLDER

The second needs torch and transformers. Ids are stored without the prompt; they end with an
end-of-text id where the model made one.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    "Water boils at 100 degrees, which is why every cook in the mountains knows that",
]
SETTINGS = [
    {},
    {"repetition_penalty": 1.3},
    {"num_beams": 3, "length_penalty": -1.0, "repetition_penalty": 1.2},
]
NEW_TOKENS = 64


def main(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = []
    for settings in SETTINGS:
        for prompt in PROMPTS:
            given = tokenizer(prompt, return_tensors="pt")
            made = model.generate(**given, **settings, max_new_tokens=NEW_TOKENS, do_sample=False)
            ids = made[0, given.input_ids.shape[1] :].tolist()
            cases.append({"settings": settings, "prompt": prompt, "ids": ids})
    path = Path(__file__).with_name("generate_smollm2.json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f'{{"new_tokens": {NEW_TOKENS}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]))
