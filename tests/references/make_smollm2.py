"""Makes smollm2.npz: logits by `transformers` of the weights that lmlite loads.

    python -c "import lmlite; lmlite.load('package:smollm2-135m-instruct').save('FOLDER')"
    python tests/references/make_smollm2.py FOLDER

Two texts of unequal length, and of every position's 49152 logits each 97th and the log-sum-exp.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = (
    "Review: the plot is thin, but the performances are a joy.\nSentiment:",
    "The capital of France is Paris, and the capital of Italy is",
)
EACH = 97


def main(folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out = {}
    for i, text in enumerate(TEXTS):
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            logits = model(ids).logits[0].double()
        out[f"{i}/ids"] = ids[0].numpy()
        out[f"{i}/logits"] = logits[:, ::EACH].float().numpy()
        out[f"{i}/total"] = torch.logsumexp(logits, -1).float().numpy()
    np.savez_compressed(Path(__file__).with_name("smollm2.npz"), **out)


if __name__ == "__main__":
    main(sys.argv[1])
