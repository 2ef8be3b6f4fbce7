"""lmlite as a model of lm-evaluation-harness, against the answers of its Hugging Face backend.

The stored answers are the backend's (`references/make_harness.py`) and need no torch; where it is
installed, the backend answers for another model as well.
"""

import json
import subprocess
from pathlib import Path

import harness_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmlite
from lmlite import peft, tree
from lmlite.adapt import METHODS, Adaptation, attach
from lmlite.config import ROOT
from lmlite.decode import loop
from lmlite.errors import UserError

pytest.importorskip("lm_eval")
from lmlite.harness.model import LmliteLM  # noqa: E402 - which needs lm_eval
from lmlite.harness.options import defaults, options  # noqa: E402

SPEC = json.loads(cases.STORED.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("harness")
    cases.write_model(path / "model", SPEC)
    return path


@pytest.fixture(scope="module")
def model(folder) -> LmliteLM:
    return LmliteLM(source=str(folder / "model"), batch_size=2)


def assert_same(found: dict, wanted: dict) -> None:
    for ours, theirs in zip(found["pairs"], wanted["pairs"], strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-3) and ours[1] is theirs[1]
    np.testing.assert_allclose(found["rolling"], wanted["rolling"], atol=1e-3)
    assert found["written"] == wanted["written"]
    assert found["chats"] == wanted["chats"]


def test_answers_are_those_of_its_hugging_face_backend(model):
    assert_same(cases.answers(model), SPEC["answers"])
    assert any(greedy for _, greedy in SPEC["answers"]["pairs"])


def test_task_scores_are_those_of_its_hugging_face_backend(model, folder):
    found = cases.scores(model, folder)
    assert found.keys() == SPEC["scores"].keys()
    for name, wanted in SPEC["scores"].items():
        assert found[name] == pytest.approx(wanted, rel=1e-4), name
    assert 0 < SPEC["scores"]["written"]["exact_match,none"] < 1


def test_a_backend_that_is_there_answers_alike(tmp_path):
    """GPT-2's positions and layout, with a tokenizer that adds no token, in small windows."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(0)
    spec = json.loads(json.dumps(SPEC))
    spec["tokenizer"]["post_processor"] = None
    cases.write_model(tmp_path, spec | {"shapes": {"x": [1]}})
    size = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=128)
    ends = dict(bos_token_id=0, eos_token_id=1, initializer_range=0.3)
    hf.GPT2LMHeadModel(hf.GPT2Config(**size, **ends)).save_pretrained(tmp_path)
    theirs = HFLM(pretrained=str(tmp_path), dtype="float32", device="cpu", max_length=48)
    ours = LmliteLM(source=str(tmp_path), max_length=48, device="cpu")
    assert_same(cases.answers(ours), cases.answers(theirs))


@pytest.mark.parametrize("said", [{"repetition_penalty": 1.3}, {"num_beams": 3}, {"top_k": 5}])
def test_the_models_own_generation_config_holds(said, tmp_path):
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(0)
    cases.write_model(tmp_path, SPEC | {"shapes": {"x": [1]}})
    size = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=128)
    made = hf.GPT2Config(**size, bos_token_id=0, eos_token_id=1, initializer_range=0.3)
    hf.GPT2LMHeadModel(made).save_pretrained(tmp_path)
    plain = cases.written(LmliteLM(source=str(tmp_path)))
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    theirs = HFLM(pretrained=str(tmp_path), dtype="float32", device="cpu")
    ours = cases.written(LmliteLM(source=str(tmp_path)))
    assert ours == cases.written(theirs)
    assert (ours == plain) is ("top_k" in said)


def test_a_generation_config_that_asks_for_more_is_refused(folder, tmp_path):
    (tmp_path / "generation_config.json").write_text('{"no_repeat_ngram_size": 2}')
    with pytest.raises(UserError, match="no_repeat_ngram_size=2 is not supported; remove it"):
        defaults(tmp_path)
    assert defaults(tmp_path / "model.gguf") == defaults(folder / "model") == {}


def adapter(lm, path: Path) -> Adaptation:
    method = METHODS["lora"](targets=r"layers_\d+/attn/(q|v)", rank=2)
    adapted, labels = attach(method, lm, jax.random.key(0))
    train, frozen = tree.split(adapted.params, labels)
    rng = np.random.default_rng(0)
    train = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), train)
    made = Adaptation.of(method, lm, tree.merge(frozen, train))
    peft.write(path, made, lm)
    return made


def test_an_adapter_and_a_merged_model(folder, model, tmp_path):
    lm = lmlite.load(folder / "model")
    adapter(lm, tmp_path / "adapter").folded(lm).save(tmp_path / "merged")
    merged = LmliteLM(source=str(tmp_path / "merged"))
    adapted = LmliteLM(source=str(folder / "model"), adapter=str(tmp_path / "adapter"))
    one, two, base = (cases.answers(m) for m in (merged, adapted, model))
    assert_same(one, two)
    assert one["written"] != base["written"]
    assert np.abs(np.subtract(one["rolling"], base["rolling"])).max() > 0.1


def test_scores_do_not_depend_on_trees_or_batches(folder, model):
    alone = LmliteLM(source=str(folder / "model"), tree_tokens=1, batch_size="auto")
    assert_same(cases.answers(alone), cases.answers(model))


def test_a_context_is_read_once_for_its_questions(folder, monkeypatch):
    """And what is written after each is what is written after it alone."""
    model = LmliteLM(source=str(folder / "model"), batch_size=8)
    shared, begin = [], loop.begin
    monkeypatch.setattr(loop, "begin", lambda *args: (shared.append(args[7]), begin(*args))[1])
    texts = [f"{'The cat sat on the mat. ' * 4}{end}" for end in ("A", "It", "The dog", "A dog")]
    asked = [(text, {"max_gen_toks": 6, "until": []}) for text in texts]
    together = cases.asked(model, "generate_until", asked)
    assert len(shared) == 1 and shared[0] is not None and len(shared[0].ids) == 1
    assert together == [ask(model, "generate_until", *one)[0] for one in asked]


def ask(model, kind: str, *arguments):
    from lm_eval.api.instance import Instance

    return getattr(model, kind)([Instance(kind, {}, arguments=arguments, idx=0)])


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        ("loglikelihood", ("A", ""), "the continuation '' has 0 tokens; it must have 1 to 64"),
        ("loglikelihood", ("A", cases.LONG), "tokens; it must have 1 to 64"),
        ("generate_until", ("A", {"max_gen_toks": 64}), "max_gen_toks=64 leaves no room in max_"),
        ("generate_until", ("A", {"typical_p": 1}), "generation_kwargs: 'typical_p' is not"),
    ],
)
def test_bad_requests(kind, arguments, message, model):
    with pytest.raises(UserError, match=message):
        ask(model, kind, *arguments)


def test_bad_arguments(folder):
    source = str(folder / "model")
    for given, message in (
        ({}, "model_args: source is missing"),
        (dict(source=source, pretrained="x"), "model_args: 'pretrained' is unknown; known: source"),
        (dict(source=source, max_length=65), "max_length=65 is not in 1 .. 64"),
        (dict(source=source, adapter=source), "is not a PEFT adapter"),
    ):
        with pytest.raises(UserError, match=message):
            LmliteLM(**given)


def test_generation_options():
    drawn = options({"temperature": 0.5, "top_p": 0.9, "until": "a", "num_beams": 2})
    assert drawn == dict(stop=("a",), max_new_tokens=256, temperature=0.5, beams=2, top_p=0.9)
    greedy = options({"temperature": 0.5, "do_sample": False, "top_p": 0.9, "max_tokens": 3})
    assert greedy == dict(stop=(), max_new_tokens=3, temperature=0.0, beams=1)
    usual = options({"num_beams": 1}, {"num_beams": 4, "repetition_penalty": 1.1, "top_k": 3})
    assert usual["beams"] == 1 and usual["repetition_penalty"] == 1.1 and "top_k" not in usual
    with pytest.raises(UserError, match="early_stopping='never' is not supported"):
        options({"num_beams": 4, "early_stopping": "never"})
    with pytest.raises(UserError, match="do_sample=true needs a temperature above 0"):
        options({"do_sample": True})


WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        heavy = name.split(".")[0] in ("torch", "transformers", "peft")
        return None if heavy else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
sys.argv = ["lmlite.harness", *sys.argv[1:]]
runpy.run_module("lmlite.harness", run_name="__main__")
"""


def command(folder: Path, run_python, *flags: str) -> subprocess.CompletedProcess:
    (folder / "tasks").mkdir(exist_ok=True)
    task = {**cases.TASK, **cases.TASKS["choices"], "task": "tiny_choices"}
    task["dataset_kwargs"] = cases.write_data(folder)
    (folder / "tasks/tiny.yaml").write_text(json.dumps(task))  # which is YAML
    source = f"source={folder / 'model'}"
    known = ["--tasks", "tiny_choices", "--include_path", str(folder / "tasks")]
    return run_python(
        "-c", WITHOUT, "--model", "lmlite", "--model_args", source, *known, *flags,
        HF_HUB_OFFLINE="1",
    )  # fmt: skip


def test_the_command_needs_no_torch(folder, run_python):
    done = command(folder, run_python, "--batch_size", "4")
    assert done.returncode == 0, done.stderr
    accuracy = SPEC["scores"]["choices"]["acc,none"]
    assert f"|acc     |↑  |{accuracy:.4f}" in done.stdout.replace("  ", "  ")


BY_ENTRY_POINT = """
from importlib.metadata import EntryPoint
from lm_eval.api.registry import get_model, model_registry

point = EntryPoint("lmlite", "lmlite.harness.model:LmliteLM", "lm_eval.models")
model_registry.register("lmlite", target=point)
print(get_model("lmlite").__name__)
"""


def test_the_entry_point_is_the_model(run_python):
    """As a harness finds it that reads them: 0.4.13 has a place for one, and does not look."""
    text = (ROOT / "setup.py").read_text()
    assert '{"lm_eval.models": ["lmlite = lmlite.harness.model:LmliteLM"]}' in text
    done = run_python("-c", BY_ENTRY_POINT)
    assert done.stdout == "LmliteLM\n", done.stderr
