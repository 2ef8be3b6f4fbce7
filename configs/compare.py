"""In-context learning against light tuning on one task.

    python -m experiments.compare --workdir=/tmp/lmlite

`arms` is a comma-separated choice of the names below; every field of an arm can be overridden,
for example --config.arms.lora-qv.rank=16.
"""

from ml_collections import ConfigDict

from configs import common

DEFAULT = "zero-shot,4-shot,16-shot,linear-probe,norms,last-2-layers,lora-qv,lora-all"


def get_config(
    task: str = "rotten_tomatoes",
    model: str = "package:smollm2-135m-instruct",
    arms: str = DEFAULT,
) -> ConfigDict:
    """See the module's docstring."""
    known = {
        "zero-shot": common.in_context(0),
        "4-shot": common.in_context(4),
        "16-shot": common.in_context(16),
        **common.methods(),
    }
    chosen = arms.split(",")
    if missing := [name for name in chosen if name not in known]:
        raise ValueError(f"arm {missing[0]!r} is unknown; known: {', '.join(known)}")
    return common.experiment(task, model, {name: known[name] for name in chosen})


def sweep_labels():
    """More labelled examples."""
    for examples in (16, 64, 256, 1024):
        yield {"examples": examples}


def sweep_dtype():
    """Precision of the matrix products."""
    for dtype in ("float32", "bfloat16"):
        yield {"dtype": dtype}
