"""Choice log-probabilities by lm-evaluation-harness's Hugging Face backend.

    PEERS_PYTHON lm_eval_score.py JOB.json ANSWER.json

Needs torch, transformers and lm-eval, and nothing of lmlite. The job holds model (a directory),
batch_size, and requests: (context, continuation) pairs.
"""

import json
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def score(job: dict) -> dict:
    """The answer: seconds of scoring (tokenization included, loading not) and a value a request."""
    lm = HFLM(job["model"], device="cpu", dtype="float32", batch_size=job["batch_size"])
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=tuple(pair), idx=i)
        for i, pair in enumerate(job["requests"])
    ]
    start = time.perf_counter()
    scores = lm.loglikelihood(requests)
    seconds = time.perf_counter() - start
    return {
        "numbers": {"score_seconds": seconds, "peak_kib": peak_kib()},
        "values": {"scores": [logprob for logprob, _ in scores]},
        "versions": {name: version(name) for name in ("torch", "transformers", "lm-eval")},
    }


def peak_kib() -> int:
    """The most memory this process held; macOS counts in bytes, Linux in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    job, answer = map(Path, sys.argv[1:])
    answer.write_text(json.dumps(score(json.loads(job.read_text()))))
