"""Greedy generation by `transformers`.

    PEERS_PYTHON hf_generate.py JOB.json ANSWER.json

Needs torch and transformers, and nothing of lmlite. The job holds model (a directory), prompts
(lists of token ids), new_tokens, batch_sizes and runs.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def measure(job: dict) -> dict:
    """The answer: the fastest run's seconds by batch size, and the new ids of the last one."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # every text is made to its full length
    model.generation_config.pad_token_id = 0
    numbers, ids = {}, []
    for size in job["batch_sizes"]:
        inputs = padded(job["prompts"][:size])
        seconds = []
        for _ in range(job["runs"] + 1):
            start = time.perf_counter()
            out = model.generate(**inputs, max_new_tokens=job["new_tokens"], do_sample=False)
            seconds.append(time.perf_counter() - start)
        numbers[f"seconds_{size}"] = min(seconds[1:])
        ids = out[:, inputs["input_ids"].shape[1] :].tolist()
    versions = {name: version(name) for name in ("torch", "transformers")}
    return {"numbers": numbers, "values": {"ids": ids}, "versions": versions}


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Ids and mask, padded on the left as generation wants them."""
    length = max(map(len, prompts))
    ids = [[0] * (length - len(p)) + p for p in prompts]
    mask = [[0] * (length - len(p)) + [1] * len(p) for p in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


if __name__ == "__main__":
    job, answer = map(Path, sys.argv[1:])
    answer.write_text(json.dumps(measure(json.loads(job.read_text()))))
