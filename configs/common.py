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
        label="answer",
        choices_columns=("answerA", "answerB", "answerC"),
    ),
}


def task(name: str) -> ConfigDict:
    """A task of TASKS, or a source of your own ('csv:PATH', 'jsonl:PATH', 'tfds:NAME').

    A source of your own is assumed to have the columns `text` and `label`, the label an index into
    `choices` or the text to produce; set config.task.* to say otherwise.
    """
    if name not in TASKS and ":" not in name:
        raise ValueError(f"task {name!r} is neither one of {sorted(TASKS)} nor a source like csv:PATH")
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
    (('adapter', ('learning_rate', 1e-3)),).
    """
    defaults = dict(
        learning_rate=learning_rate,
        weight_decay=0.0,
        schedule="linear",
        warmup=0.1,
        clip_norm=1.0,
        accumulate=1,
        groups=(),
    )
    return ConfigDict({**defaults, **fields})


def train(epochs: int, batch_size: int = 8, patience: int = 2) -> ConfigDict:
    """Training length; patience counts epochs without a better development loss, 0 for none."""
    return ConfigDict(dict(epochs=epochs, batch_size=batch_size, patience=patience))


def in_context(shots: int) -> ConfigDict:
    """k-shot prompting, read raw and calibrated."""
    return ConfigDict(dict(kind="in_context", shots=shots, readings=("contextual", "batch")))


def tuned(method: str, learning_rate: float, epochs: int = 4, **hyper) -> ConfigDict:
    """A tuning method with its hyperparameters."""
    return ConfigDict(
        dict(kind="tuned", method=method, **hyper, train=train(epochs), optim=optim(learning_rate))
    )


def lora(targets: str) -> ConfigDict:
    """LoRA on the linear layers whose paths match `targets`."""
    return tuned("lora", 5e-4, targets=targets, rank=8, alpha=16.0, dropout=0.0)


def methods() -> dict[str, ConfigDict]:
    """Every tuning arm by name, with its default hyperparameters."""
    return {
        "linear-probe": tuned("linear_probe", 1e-2, epochs=30),
        "norms": tuned("norms", 5e-3),
        "bias": tuned("bias", 1e-3),
        "last-2-layers": tuned("last_layers", 1e-4, epochs=8, layers=2),
        "lora-qv": lora(r"layers_\d+/attn/(q|v)"),
        "lora-all": lora(r"layers_\d+/(attn|mlp)/\w+"),
        "full": tuned("full", 2e-5),
    }
