"""Parts that several configs share: the tasks, the tuning methods, and prompts as arms."""

from ml_collections import ConfigDict

from configs.tasks import TASKS, task
from configs.tuning import methods, optim

__all__ = ["TASKS", "VARIANTS", "experiment", "in_context", "methods", "optim", "prompted", "task"]


def in_context(shots: int, **fields) -> ConfigDict:
    """k-shot prompting, read raw and calibrated; see `lmlite.arms.in_context.InContext`."""
    defaults = dict(
        shots=shots,
        readings=("contextual", "batch"),
        choose="balanced",
        order="drawn",
        orders=1,
        direction="direct",
        label_words="given",
        retriever="package:all-minilm-l6-v2",
        diversity=0.0,
        tree_tokens=1024,
    )
    return ConfigDict({"kind": "in_context", **defaults, **fields})


VARIANTS = {
    "random": dict(choose="random"),
    "first": dict(choose="first"),
    "nearest": dict(choose="nearest", order="similar"),
    "mmr": dict(choose="nearest", order="similar", diversity=0.3),
    "diverse": dict(choose="diverse"),
    "curriculum": dict(order="curriculum"),
    "best": dict(order="best", orders=8),
    "orders": dict(orders=3),
    "channel": dict(direction="channel", readings=()),
    "words": dict(label_words="found"),
    "constrained": dict(direction="constrained", readings=()),
}


def prompted(name: str) -> ConfigDict | None:
    """The arm 'zero-shot' or 'K-shot', and 'K-shot-VARIANT' of VARIANTS; 'task-shot' for as many as
    the task's file says; None for another name.
    """
    if name == "task-shot":
        return in_context(-1)
    shots, _, variant = name.removeprefix("zero").partition("-shot")
    variant = variant.removeprefix("-")
    if "-shot" not in name or not (shots.isdecimal() or name.startswith("zero-shot")):
        return None
    if variant and variant not in VARIANTS:
        return None
    return in_context(int(shots or 0), **VARIANTS.get(variant, {}))


def experiment(task_name: str, model: str, arms: dict[str, ConfigDict]) -> ConfigDict:
    """What every experiment that fits and evaluates arms has.

    examples: labelled examples, of which the fraction dev_fraction is for development. seeds: of
    tuning runs; draws: of demonstrations. seed: of the labelled and the test sample. together: how
    many tuning runs of one form (seeds, learning rates, ranks) may train in one compiled step; 0
    leaves it to the device. quantize: 'int8' or 'nf4' holds the model's linear layers in 8 or 4
    bits, '' in `dtype`.
    """
    return ConfigDict(
        dict(
            model=model,
            dtype="float32",
            quantize="",
            task=task(task_name),
            examples=64,
            dev_fraction=0.25,
            test_items=200,
            seed=0,
            seeds=(0, 1),
            draws=(0, 1, 2),
            together=0,
            arms=arms,
        )
    )
