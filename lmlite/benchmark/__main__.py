"""A measured process of ours: python -m lmlite.benchmark JOB.json ANSWER.json."""

import json
import resource
import sys
from pathlib import Path

from ml_collections import ConfigDict

from lmlite.benchmark import generate, in_context, many, passages, states, texts, training
from lmlite.errors import UserError
from lmlite.models import hf
from lmlite.models.load import load


def export_model(job: dict) -> dict:
    """Writes the model to `directory` in Hugging Face's format, float32."""
    lm = load(ConfigDict(job["config"]).model)
    directory = Path(job["directory"])
    hf.write(directory, lm.config, lm.params)
    lm.text.save(directory)
    return {"numbers": {}, "values": {}}


MEASUREMENTS = {
    "export_model": export_model,
    "icl": in_context.measure,
    "passages": passages.measure,
    "texts": texts.measure,
    "lora": training.measure,
    "many": many.measure,
    "states": states.measure,
    "generate": generate.measure,
    "export_adapter": training.export,
}


def main(job: Path, answer: Path) -> None:
    """Runs MEASUREMENTS[job's `measurement`]; adds the peak memory of the process."""
    wanted = json.loads(job.read_text())
    found = MEASUREMENTS[wanted["measurement"]](wanted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    found["numbers"]["peak_kib"] = peak // 1024 if sys.platform == "darwin" else peak
    answer.write_text(json.dumps(found))


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
