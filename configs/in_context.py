"""k-shot prompting on one task, under every reading of the same scores.

python -m experiments.in_context --config=configs/in_context.py:shots=8 --workdir=/tmp/prompted
"""

from ml_collections import ConfigDict

from configs import common


def get_config(
    task: str = "rotten_tomatoes",
    model: str = "package:smollm2-135m-instruct",
    shots: int = 16,
) -> ConfigDict:
    """See the module's docstring."""
    config = common.experiment(task, model, {f"{shots}-shot": common.in_context(shots)})
    arm = config.arms[f"{shots}-shot"]
    arm.readings = ("length", *arm.readings)
    return config
