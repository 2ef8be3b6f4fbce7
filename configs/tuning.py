"""The tuning methods with their default hyperparameters."""

from ml_collections import ConfigDict


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


def tuned(
    method: str, learning_rate: float, epochs: int = 4, patience: int = 2, **hyper
) -> ConfigDict:
    """A tuning method with its hyperparameters; `readings` are those of prompting."""
    settings = dict(
        train=train(epochs, patience=patience),
        optim=optim(learning_rate),
        data=data(),
        readings=(),
    )
    return ConfigDict(dict(kind="tuned", method=method, **hyper, **settings))


def lora(targets: str, method: str = "lora", learning_rate: float = 5e-4, **hyper) -> ConfigDict:
    """LoRA, or a method that has its fields, on the linear layers whose paths match `targets`."""
    fields = dict(rank=8, alpha=16.0, dropout=0.0, rank_stabilised=False, ranks=(), alphas=())
    return tuned(method, learning_rate, targets=targets, **{**fields, **hyper})


def lora_plus(targets: str, ratio: float = 16.0) -> ConfigDict:
    """LoRA whose B learns `ratio` times as fast as its A."""
    arm = lora(targets)
    arm.optim.learning_rate = 3e-5
    arm.optim.groups = (("lora_b", ("learning_rate", 3e-5 * ratio)),)
    return arm


def prompt(method: str, learning_rate: float, **hyper) -> ConfigDict:
    """A method of twenty virtual tokens."""
    return tuned(method, learning_rate, epochs=8, length=20, **hyper)


def diff_pruning(targets: str) -> ConfigDict:
    """A change of 0.5 % of the weights: found at the rate of full tuning by gates that learn
    faster, then trained at that of the masks.
    """
    hyper = dict(fraction=0.005, strength=1.0, kept_learning_rate=1e-3)
    arm = tuned("diff_pruning", 2e-5, targets=targets, **hyper)
    arm.optim.groups = (("gate", ("learning_rate", 1e-1)),)
    return arm


def lora_and_prompt(targets: str) -> ConfigDict:
    """LoRA and twenty virtual tokens trained together, each at the rate it has alone."""
    own = ("kind", "train", "optim", "data", "readings")
    parts = dict(
        lora=lora(targets), prompt=prompt("prompt_tuning", 3e-3, start="vocabulary", text="")
    )
    hyper = {name: {k: v for k, v in part.items() if k not in own} for name, part in parts.items()}
    arm = tuned("joined", 5e-4, epochs=8, parts=hyper)
    arm.optim.groups = (("prompt", ("learning_rate", 3e-3)),)
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
        "first-layer": tuned("layers", 1e-4, layers=(0,), encoder=()),
        "layerwise-decay": tuned("layerwise", 5e-5, decay=0.9),
        "gradual-unfreezing": tuned("gradual_unfreezing", 5e-5, until=0.5),
        "l2-sp": tuned("l2_sp", 2e-5, strength=0.01),
        "magnitude-mask": tuned(
            "sparse_mask", 1e-3, targets=linear, fraction=0.005, choose="magnitude"
        ),
        "random-mask": tuned("sparse_mask", 1e-3, targets=linear, fraction=0.005, choose="random"),
        "fish-mask": tuned("fish_mask", 3e-4, targets=linear, fraction=0.005),
        "diff-pruning": diff_pruning(linear),
        "lora-qv": lora(qv),
        "lora-all": lora(linear),
        "rslora": lora(linear, learning_rate=1.5e-4, rank=32, rank_stabilised=True),
        "lora-plus": lora_plus(linear),
        "dora": lora(linear, "dora"),
        "pissa": lora(linear, "pissa", 1.5e-4, alpha=8.0),
        "vera": tuned("vera", 3e-2, targets=linear, rank=256, d_initial=0.1, dropout=0.0),
        "ia3": tuned("ia3", 5e-3, outputs=rf"{block}/(attn|cross)/(k|v)", inputs=after_mlp),
        "houlsby": tuned("adapter", 1e-3, targets=after_both, width=32, activation="gelu"),
        "pfeiffer": tuned("adapter", 1e-3, targets=after_mlp, width=64, activation="relu"),
        "parallel-adapter": tuned(
            "parallel_adapter",
            3e-4,
            targets=rf"{block}/mlp",
            width=64,
            activation="relu",
            scale=4.0,
        ),
        "prompt": prompt("prompt_tuning", 3e-3, start="vocabulary", text=""),
        "prefix": prompt("prefix_tuning", 1e-2, start="vocabulary", text=""),
        "prefix-mlp": prompt("encoded_prefix", 3e-4, hidden=512),
        "p-tuning": prompt("p_tuning", 1e-3, encoder="mlp", hidden=256),
        "p-tuning-lstm": prompt("p_tuning", 3e-4, encoder="lstm", hidden=256),
        "full": tuned("full", 2e-5),
        "lora-and-prompt": lora_and_prompt(qv),
    }
