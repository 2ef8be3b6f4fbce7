"""Every tuning method with more and more labels: MiniLM, or SmolLM2.

    python -m experiments.study --workdir=/tmp/minilm
    python -m experiments.study --config=configs/study.py:study=smollm2 --workdir=/tmp/smollm2

Each point of `points` is (labelled examples, factor on the epochs, arms kept: 0 for all).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(study: str = "minilm", arms: str = "") -> ConfigDict:
    """`study`: minilm or smollm2; `arms`: names, all that suit the model by default."""
    known = common.methods()
    if study == "minilm":
        config = _minilm(known)
    elif study == "smollm2":
        config = _smollm2({name: known[name] for name in known if name != "bias"})
    else:
        raise ValueError(f"study {study!r} is unknown; known: minilm, smollm2")
    if arms:
        names = arms.split(",")
        if missing := [name for name in names if name not in config.arms]:
            raise ValueError(f"arm {missing[0]!r} is unknown here; known: {', '.join(config.arms)}")
        config.arms = ConfigDict({name: config.arms[name] for name in names})
    config.dtype = "bfloat16"
    return config


def _minilm(arms: dict[str, ConfigDict]) -> ConfigDict:
    config = common.experiment("rotten_tomatoes", "package:all-minilm-l6-v2", arms)
    config.task.template = "{text}"
    config.test_items = 400
    config.seeds = (0, 1, 2, 3, 4)
    config.points = ((16, 4.0, 0), (64, 2.0, 0), (256, 1.0, 0), (1024, 0.75, 0))
    config.always = ()
    return config


def _smollm2(arms: dict[str, ConfigDict]) -> ConfigDict:
    config = common.experiment("rotten_tomatoes", "package:smollm2-135m-instruct", arms)
    config.seeds = (0, 1, 2)
    config.points = ((64, 1.0, 0), (256, 1.0, 5))
    config.always = ()
    return config
