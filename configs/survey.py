"""In-context learning and LoRA with the same 16 labels, over the shipped tasks.

    python -m experiments.survey --workdir=/tmp/survey

`tasks` is a comma-separated choice of `common.TASKS` (or of sources of your own); what holds for
all of them can be set as in compare, and a field of one as --config.tasks.NAME.FIELD=VALUE, where
a source has '_' for every other sign: csv_reviews_csv.
"""

import re

from ml_collections import ConfigDict

from configs import common

DEFAULT = (
    "rotten_tomatoes,zh_reviews,debian_topic,corr2cause,socialiqa,logiqa,population_spans,"
    "debian_synopsis,translation_de,translation_fr,translation_zh,dialogue,tang_poems,"
    "python_functions,shakespeare"
)
ARMS = ("zero-shot", "4-shot", "16-shot")


def get_config(
    tasks: str = DEFAULT, model: str = "package:smollm2-135m-instruct", tuned: str = "lora-all"
) -> ConfigDict:
    """`tuned`: comma-separated tuning methods beside the prompts."""
    known = common.methods()
    if missing := [name for name in tuned.split(",") if name not in known]:
        raise ValueError(f"method {missing[0]!r} is unknown; known: {', '.join(known)}")
    readings = ("contextual", "batch", "pmi")
    arms = {name: common.prompted(name) for name in ARMS}
    arms |= {name: known[name] for name in tuned.split(",")}
    for arm in arms.values():
        arm.readings = readings
    fields = common.experiment("rotten_tomatoes", model, arms).to_dict()
    del fields["task"]
    config = ConfigDict(fields)
    keys = {name: re.sub(r"[^\w-]+", "_", name) for name in tasks.split(",")}  # without dots
    config.tasks = {key: common.task(name) for name, key in keys.items()}
    for task in config.tasks.values():  # long answers would take most of the time
        task.generation.max_new_tokens = min(task.generation.max_new_tokens, 48)
    for name in tuned.split(","):  # as many steps as a few labels need
        config.arms[name].train.epochs *= 3
        config.arms[name].train.patience = 3
    config.examples = 16
    config.test_items = 100
    config.dtype = "bfloat16"
    config.draws = (0, 1)
    return config
