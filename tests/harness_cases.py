"""What is asked of a model in lm-evaluation-harness: requests of every kind, and tasks, on one tiny
Llama. `references/harness.json` holds the model's shapes, its tokenizer, and the answers of the
harness's Hugging Face backend; see `references/make_harness.py`.
"""

import json
from pathlib import Path

from parity import REFERENCES, tensor
from safetensors.numpy import save_file

STORED = REFERENCES / "harness.json"
LENGTH = 64  # positions of the model
LONG = "The cat sat on the mat and the dog sat on the cat. " * 8  # past its context
# No two of one whole text: of such, lm-eval 0.4.13's backend reads the shorter continuation's
# logits at the longer one's places (its cache of one-token continuations). So it does of windows of
# a text that repeats itself, as LONG twice over would.
PAIRS = [
    ("The cat", " sat"),
    ("The cat", " sat on the mat"),
    ("The cat", "mat"),  # what it writes
    ("The dog sat on ", "the mat"),  # its space goes to the continuation
    ("The cat\n", "sat"),
    ("", "The cat"),
    ("", " dog"),
    ("<s>The cat", " sat"),  # brings its own first token
    (LONG, " and"),
    (LONG, " and the dog"),
    ("A", LONG[:90]),
    ("The dog", "\n\n"),
]
TEXTS = ["The cat sat.", "", LONG, "<s>The dog", "\n"]
WRITTEN = [
    ("The cat", {"until": ["\n"], "max_gen_toks": 12}),
    ("The dog sat on ", {"until": [], "max_gen_toks": 9, "do_sample": False, "temperature": 1.0}),
    ("The", {"until": "t", "max_gen_toks": 12}),
    ("The", {"until": ["x", "ca"], "max_new_tokens": 12, "top_p": 0.9, "do_sample": False}),
    (LONG, {"until": ["."], "max_gen_toks": 20}),
    ("and the", {"until": ["\n"], "max_gen_toks": 12}),
]
CHATS = [
    ([{"role": "system", "content": "Be brief. "}, {"role": "user", "content": " hi "}], True),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " So the"}], False),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "So the "}], False),
]
TASK = {
    "dataset_path": "json",
    "training_split": "train",
    "test_split": "test",
    "fewshot_config": {"sampler": "first_n"},
    "doc_to_text": "{{animal}} sat on the",
    "doc_to_target": "{{place}}",
}
TASKS = {
    "choices": dict(
        output_type="multiple_choice",
        doc_to_choice=["mat", "cat", "dog and the cat"],
        num_fewshot=2,
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    ),
    "likely": dict(output_type="loglikelihood", doc_to_target=" {{place}}"),
    "rolling": dict(output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}"),
    "written": dict(
        output_type="generate_until",
        doc_to_target="{{place[1]}}",
        filter_list=[
            {"name": "none", "filter": [
                {"function": "regex", "regex_pattern": "([aeiou])"}, {"function": "take_first"}
            ]}
        ],
        generation_kwargs={"until": ["\n"], "max_gen_toks": 5},
        metric_list=[{"metric": "exact_match"}],
    ),
    "chat": dict(output_type="multiple_choice", doc_to_choice=["mat", "cat", "dog and the cat"]),
}  # fmt: skip


def write_model(folder: Path, spec: dict) -> None:
    """The tiny model's directory."""
    folder.mkdir(exist_ok=True)
    for name in ("config", "tokenizer", "tokenizer_config"):
        (folder / f"{name}.json").write_text(json.dumps(spec[name]))
    tensors = {name: tensor(name, shape) for name, shape in spec["shapes"].items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_data(folder: Path) -> dict:
    """The rows of the tasks; the `dataset_kwargs` that name them."""
    places, animals = ("mat", "cat", "dog and the cat"), ("The cat", "A dog", "the mat", "It")
    found = {}
    for split, shift in (("train", 0), ("test", 5)):
        rows = [
            {
                "animal": animals[i % 4],
                "place": places[i % 3],
                "text": f"{animals[i % 4]} sat on the {places[i % 3]}. " * (1 + 4 * (i % 3)),
            }
            for i in range(shift, shift + 6)
        ]
        found[split] = str(folder / f"{split}.jsonl")
        Path(found[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data_files": found, "cache_dir": str(folder / "cache")}


def asked(model, kind: str, arguments) -> list:
    """What a model of lm_eval answers to requests."""
    from lm_eval.api.instance import Instance

    return getattr(model, kind)([Instance(kind, {}, arguments=one, idx=0) for one in arguments])


def written(model) -> list[str]:
    """What it writes."""
    return asked(model, "generate_until", WRITTEN)


def answers(model) -> dict:
    """What it says to the requests above, as JSON has it."""
    return {
        "pairs": [list(one) for one in asked(model, "loglikelihood", PAIRS)],
        "rolling": asked(model, "loglikelihood_rolling", [(text,) for text in TEXTS]),
        "written": written(model),
        "chats": [model.apply_chat_template(list(chat), end) for chat, end in CHATS],
    }


def scores(model, folder: Path) -> dict:
    """Task -> metric -> value."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    kwargs, found = write_data(folder), {}
    manager = TaskManager(include_defaults=False)
    for name, own in TASKS.items():
        task = {**TASK, **own, "task": name, "dataset_kwargs": dict(kwargs)}
        ran = simple_evaluate(
            model, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=False,
            apply_chat_template=name == "chat",
        )  # fmt: skip
        rows = ran["results"][name]
        found[name] = {k: v for k, v in rows.items() if k.endswith(",none") and "stderr" not in k}
    return found
