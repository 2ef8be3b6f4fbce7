"""Parts that several configs share: tasks, training settings, and the arms of the comparison."""

from ml_collections import ConfigDict

TASKS = {
    "rotten_tomatoes": dict(
        source="package:rotten_tomatoes",
        template="Review: {text}\nSentiment:",
        label="category",
        labels=("rotten", "fresh"),
        choices=("negative", "positive"),
        group="movie_name",
        id="id",
    ),
    "socialiqa": dict(
        source="package:socialiqa",
        template="{context}\nQuestion: {question}\nAnswer:",
        label="label",
        labels=("A", "B", "C"),
        choices_columns=("answer_a", "answer_b", "answer_c"),
        id="id",
    ),
    "logiqa": dict(
        source="package:logiqa",
        template="{context}\nQuestion: {question}\nAnswer:",
        label="label",
        labels=("A", "B", "C", "D"),
        choices_columns=("answer_a", "answer_b", "answer_c", "answer_d"),
        group="context",
        id="id",
    ),
}


def task(name: str) -> ConfigDict:
    """A task of TASKS, or a source of your own ('csv:PATH', 'jsonl:PATH', 'tfds:NAME').

    A source of your own is assumed to have the columns `text` and `label`, the label an index into
    `choices` or the text to produce; set config.task.* to say otherwise.
    """
    if name not in TASKS and ":" not in name:
        raise ValueError(f"task {name!r} is none of {sorted(TASKS)} and no source like csv:PATH")
    fields = dict(
        source=name,
        template="{text}\nAnswer:",
        label="label",
        labels=(),
        ignore_labels=(),
        choices=(),
        choices_columns=(),
        group="",
        id="",
        limit=0,
        split=(("train", 0.6), ("dev", 0.1), ("test", 0.3)),
        fewshot_delimiter="\n\n",
        target_delimiter=" ",
        description="",
    )
    return ConfigDict({**fields, **TASKS.get(name, {})})


def optim(learning_rate: float, **fields) -> ConfigDict:
    """Optimizer fields; `groups` replaces learning_rate or weight_decay for single labels:
    (('lora_b', ('learning_rate', 1e-3)),). head_learning_rate: of the classification head that an
    encoder gets beside the method.
    """
    defaults = dict(
        learning_rate=learning_rate,
        head_learning_rate=1e-2,
        weight_decay=0.0,
        schedule="linear",
        warmup=0.1,
        clip_norm=1.0,
        accumulate=1,
        groups=(),
    )
    return ConfigDict({**defaults, **fields})


def train(epochs: int, batch_size: int = 8, patience: int = 2) -> ConfigDict:
    """Training length; patience counts epochs without a better development loss, 0 for none.

    remat: 'block' recomputes the activations of each block in the backward pass, 'none' keeps them.
    focal_gamma: above 0 for the focal loss.
    """
    fields = dict(epochs=epochs, batch_size=batch_size, patience=patience)
    return ConfigDict(dict(**fields, remat="none", focal_gamma=0.0))


def data() -> ConfigDict:
    """What happens to the training examples: see `lmlite.arms.examples.Handling`."""
    return ConfigDict(
        dict(
            class_weights="",
            sampling="",
            label_smoothing=0.0,
            copies=0,
            token_dropout=0.0,
            token_swap=0.0,
            rewrite="",
        )
    )


def in_context(shots: int) -> ConfigDict:
    """k-shot prompting, read raw and calibrated."""
    return ConfigDict(dict(kind="in_context", shots=shots, readings=("contextual", "batch")))


def tuned(
    method: str, learning_rate: float, epochs: int = 4, patience: int = 2, **hyper
) -> ConfigDict:
    """A tuning method with its hyperparameters."""
    settings = dict(train=train(epochs, patience=patience), optim=optim(learning_rate), data=data())
    return ConfigDict(dict(kind="tuned", method=method, **hyper, **settings))


def lora(targets: str, method: str = "lora", **hyper) -> ConfigDict:
    """LoRA, or a method that has its fields, on the linear layers whose paths match `targets`."""
    fields = dict(rank=8, alpha=16.0, dropout=0.0, rank_stabilised=False, ranks=(), alphas=())
    return tuned(method, 5e-4, targets=targets, **{**fields, **hyper})


def lora_plus(targets: str, ratio: float = 16.0) -> ConfigDict:
    """LoRA whose B learns `ratio` times as fast as its A."""
    arm = lora(targets)
    arm.optim.learning_rate = 1e-4
    arm.optim.groups = (("lora_b", ("learning_rate", 1e-4 * ratio)),)
    return arm


def prompt(method: str, learning_rate: float, **hyper) -> ConfigDict:
    """A method of twenty virtual tokens."""
    return tuned(method, learning_rate, epochs=8, length=20, **hyper)


def diff_pruning(targets: str) -> ConfigDict:
    """A change of 0.5 % of the weights; gates learn faster than the change itself."""
    arm = tuned("diff_pruning", 2e-4, targets=targets, fraction=0.005, strength=1.0)
    arm.optim.groups = (("gate", ("learning_rate", 1e-1)),)
    return arm


def lora_and_prompt(targets: str) -> ConfigDict:
    """LoRA and twenty virtual tokens trained together, each at the rate it has alone."""
    own = ("kind", "train", "optim", "data")
    parts = dict(
        lora=lora(targets), prompt=prompt("prompt_tuning", 1e-2, start="vocabulary", text="")
    )
    hyper = {name: {k: v for k, v in part.items() if k not in own} for name, part in parts.items()}
    arm = tuned("joined", 5e-4, epochs=8, parts=hyper)
    arm.optim.groups = (("prompt", ("learning_rate", 1e-2)),)
    return arm


def methods() -> dict[str, ConfigDict]:
    """Every tuning arm by name, with its default hyperparameters."""
    block = r"(encoder/)?layers_\d+"  # of an encoder-decoder both stacks
    qv = rf"{block}/(attn|cross)/(q|v)"
    linear = rf"{block}/((attn|cross)/[qkvo]|mlp/(up|gate|down))"
    after_both, after_mlp = rf"{block}/((attn|cross)/o|mlp/down)", rf"{block}/mlp/down"
    return {
        "linear-probe": tuned("linear_probe", 3e-2, epochs=60, patience=0),
        "norms": tuned("norms", 5e-3),
        "bias": tuned("bias", 1e-3),
        "last-2-layers": tuned("last_layers", 1e-4, epochs=8, layers=2),
        "first-layer": tuned("layers", 1e-4, layers=(0,)),
        "layerwise-decay": tuned("layerwise", 5e-5, decay=0.9),
        "gradual-unfreezing": tuned("gradual_unfreezing", 5e-5, until=0.5),
        "l2-sp": tuned("l2_sp", 2e-5, strength=0.01),
        "magnitude-mask": tuned(
            "sparse_mask", 1e-3, targets=linear, fraction=0.005, choose="magnitude"
        ),
        "random-mask": tuned("sparse_mask", 1e-3, targets=linear, fraction=0.005, choose="random"),
        "fish-mask": tuned("fish_mask", 1e-3, targets=linear, fraction=0.005),
        "diff-pruning": diff_pruning(linear),
        "lora-qv": lora(qv),
        "lora-all": lora(linear),
        "rslora": lora(linear, rank=32, rank_stabilised=True),
        "lora-plus": lora_plus(linear),
        "dora": lora(linear, "dora"),
        "pissa": lora(linear, "pissa", alpha=8.0),
        "vera": tuned("vera", 1e-2, targets=linear, rank=256, d_initial=0.1, dropout=0.0),
        "ia3": tuned("ia3", 5e-3, outputs=rf"{block}/(attn|cross)/(k|v)", inputs=after_mlp),
        "houlsby": tuned("adapter", 1e-3, targets=after_both, width=32, activation="gelu"),
        "pfeiffer": tuned("adapter", 1e-3, targets=after_mlp, width=64, activation="relu"),
        "parallel-adapter": tuned(
            "parallel_adapter",
            1e-3,
            targets=rf"{block}/mlp",
            width=64,
            activation="relu",
            scale=4.0,
        ),
        "prompt": prompt("prompt_tuning", 1e-2, start="vocabulary", text=""),
        "prefix": prompt("prefix_tuning", 1e-2, start="vocabulary", text=""),
        "prefix-mlp": prompt("encoded_prefix", 1e-3, hidden=512),
        "p-tuning": prompt("p_tuning", 1e-3, encoder="mlp", hidden=256),
        "p-tuning-lstm": prompt("p_tuning", 1e-3, encoder="lstm", hidden=256),
        "full": tuned("full", 2e-5),
        "lora-and-prompt": lora_and_prompt(qv),
    }


def experiment(task_name: str, model: str, arms: dict[str, ConfigDict]) -> ConfigDict:
    """What every experiment that fits and evaluates arms has.

    examples: labelled examples, of which the fraction dev_fraction is for development. seeds: of
    tuning runs; draws: of demonstrations. seed: of the labelled and the test sample. together: how
    many tuning runs of one form (seeds, learning rates, ranks) may train in one compiled step; 0
    leaves it to the device.
    """
    return ConfigDict(
        dict(
            model=model,
            dtype="float32",
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
