"""One tuning method on one task, its result and the tuned model.

    python -m experiments.finetune --config=configs/finetune.py:method=lora-all --workdir=/tmp/tuned

`method` is an arm of `common.methods()`. With --config.save=true the tuned weights are written as
Hugging Face directories under model/ in the workdir (methods that fold into plain weights). With
--config.folds=5 the labelled examples are cross-validated instead; the test split is left alone.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(
    task: str = "rotten_tomatoes",
    model: str = "package:smollm2-135m-instruct",
    method: str = "lora-qv",
) -> ConfigDict:
    """See the module's docstring."""
    known = common.methods()
    if method not in known:
        raise ValueError(f"method {method!r} is unknown; known: {', '.join(known)}")
    config = common.experiment(task, model, {method: known[method]})
    config.seeds = (0,)
    config.save = False
    config.folds = 0
    return config


def sweep_learning_rate():
    """Learning rates over two decades, for LoRA on query and value."""
    for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
        yield {"arms.lora-qv.optim.learning_rate": rate}
