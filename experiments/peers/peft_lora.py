"""LoRA training by PEFT in a plain PyTorch loop, from a given adapter and in a given order.

    PEERS_PYTHON peft_lora.py JOB.json ANSWER.json

Needs torch, transformers and peft, and nothing of lmlite. The job holds model and adapter
(directories), dtype, examples (token ids: context, answer), batches (indices of examples, a step
each), learning_rates (a step each) and clip_norm (0 for none).

B examples, T tokens.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def train(job: dict) -> dict:
    """The answer: seconds of training (loading excluded) and the loss of every step."""
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    model = PeftModel.from_pretrained(base, job["adapter"], is_trainable=True).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    start = time.perf_counter()
    for chosen, rate in zip(job["batches"], job["learning_rates"], strict=True):
        loss = model(**collate([job["examples"][i] for i in chosen]), use_cache=False).loss
        loss.backward()
        if job["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(weights, job["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    return {
        "numbers": {"train_seconds": seconds, "peak_kib": peak_kib()},
        "values": {"losses": losses, "trainable": sum(p.numel() for p in weights)},
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
    """int64[B, T] each, padded on the right; the labels are the answers' tokens alone."""
    rows = [example["context"] + example["answer"] for example in examples]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, (row, example) in enumerate(zip(rows, examples, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, len(example["context"]) : len(row)] = torch.tensor(example["answer"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def peak_kib() -> int:
    """The most memory this process held; macOS counts in bytes, Linux in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    job, answer = map(Path, sys.argv[1:])
    answer.write_text(json.dumps(train(json.loads(job.read_text()))))
