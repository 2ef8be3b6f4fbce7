"""In-context learning against light tuning on one task.

    python -m experiments.compare --workdir=/tmp/lmlite

`arms` is a comma-separated choice of tuning methods (`common.methods`) and prompts: zero-shot,
8-shot, 8-shot-nearest, ... (`common.VARIANTS`); every field of an arm can be overridden, for
example --config.arms.lora-qv.rank=16.
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
    known = common.methods()
    found = {name: known.get(name) or common.prompted(name) for name in arms.split(",")}
    if missing := [name for name, arm in found.items() if arm is None]:
        prompts = f"zero-shot, K-shot, K-shot-VARIANT with one of {', '.join(common.VARIANTS)}"
        raise ValueError(f"arm {missing[0]!r} is unknown; known: {prompts}; {', '.join(known)}")
    return common.experiment(task, model, found)


def sweep_labels():
    """More labelled examples."""
    for examples in (16, 64, 256, 1024):
        yield {"examples": examples}


def sweep_dtype():
    """Precision of the matrix products."""
    for dtype in ("float32", "bfloat16"):
        yield {"dtype": dtype}


def sweep_quantize():
    """The base model's linear layers in fewer and fewer bits."""
    for quantize in ("", "int8", "nf4"):
        yield {"quantize": quantize}
