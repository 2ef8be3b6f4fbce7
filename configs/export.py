"""A tuned model or an adapter as a directory that other tools open.

    python -m experiments.export --config=configs/export.py:source=/tmp/tuned --workdir=/tmp/export

`source` is the workdir of `experiments.finetune`, or a PEFT adapter directory. `format` is `peft`
(an adapter directory, adapter/ in the workdir), `lora` (the same, for any method that folds into
weights, as LoRA of `rank`), or `merged` (a Hugging Face model directory, model/).
"""

from ml_collections import ConfigDict


def get_config(source: str = "", format: str = "peft", rank: int = 16) -> ConfigDict:
    """See the module's docstring. run: ARM-SEED, where the workdir holds several; model, dtype: the
    base of an adapter directory, where it does not name one that lmlite can load.
    """
    return ConfigDict(
        dict(source=source, run="", model="", dtype="float32", format=format, rank=rank)
    )


def sweep_rank():
    """How much of a change of weights a low rank holds."""
    for rank in (4, 16, 64):
        yield {"rank": rank}
