"""The benchmark: what it measures, what it hands a peer, and what it says without one."""

import ast
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file
from tiny_lm import write_model, write_task

from configs import benchmark as defaults
from lmlite import tree
from lmlite.benchmark import CASES, benchmark, training
from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.config import ROOT, override
from lmlite.errors import UserError
from lmlite.models.tokens import Tokens

SCRIPTS = ROOT / "experiments" / "peers"
# Stands in for lm-evaluation-harness: every request scores minus the length of its continuation.
FAKE = """
import json, sys
job = json.load(open(sys.argv[1]))
assert job["requests"][0][0].endswith("Answer:") and job["batch_size"] == 1
assert (__import__("pathlib").Path(job["model"]) / "tokenizer.json").exists()
scores = [-len(text) for _, text in job["requests"]]
numbers, versions = {"score_seconds": 1e6}, {"fake": "7"}
answer = {"numbers": numbers, "values": {"scores": scores}, "versions": versions}
json.dump(answer, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ConfigDict:
    """The default config with a tiny model, a small task and little to do."""
    folder = tmp_path_factory.mktemp("tiny")
    write_model(folder / "model")
    write_task(folder / "task.csv")
    config = defaults.get_config(task=f"csv:{folder / 'task.csv'}", model=str(folder / "model"))
    small = {
        "task.labels": ("bad", "good"),
        "task.choices": ("bad", "good"),
        "icl.shots": 2,
        "icl.test_items": 5,
        "lora.examples": 12,
        "lora.epochs": 2,
        "lora.batch_size": 5,
        "lora.learning_rate": 1e-2,
    }
    return override(config.lock(), small)


def test_ratios_and_aims():
    fast = Measure("a", "b", "s", 2.0, 50.0, at_least=20)
    assert fast.ratio == 25 and fast.reached and fast.row()["reached"]
    assert not fast._replace(at_least=26).reached
    assert fast._replace(peer=None).ratio is None and fast._replace(peer=None).reached is None
    assert Measure("a", "b", "nats", 1e-4, at_most=1e-3).reached
    assert Measure("a", "b", "nats", 2e-3, at_most=1e-3).reached is False
    assert largest_difference([1, 2, 3], [1, 2.5, 2.9]) == 0.5
    assert largest_difference([1, math.nan, 3], [1, 2, 3]) == math.inf


def test_scoring_beside_a_peer(config, tmp_path):
    (tmp_path / "lm_eval_score.py").write_text(FAKE)
    config = override(config, {"cases": ("icl",), "peers_python": sys.executable})
    benchmark(config, tmp_path, peers=tmp_path)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    measures = {m["what"]: m for m in result["measures"]}
    assert measures["scoring"]["peer"] == 1e6 and measures["scoring"]["reached"]
    assert measures["scoring"]["ratio"] == 1e6 / measures["scoring"]["ours"]
    assert measures["first process"]["ours"] > measures["scoring"]["ours"] > 0
    apart = measures["log-probabilities apart by"]
    assert 1e-3 < apart["ours"] < math.inf and apart["reached"] is False
    assert [p["process"] for p in result["processes"]] == [
        "icl", "icl", "export_model", "lm_eval_score",
    ]  # fmt: skip
    assert all(p["peak_kib"] > 1e4 for p in result["processes"][:2])
    report = (tmp_path / "report.md").read_text()
    assert "fake 7" in report and "| no " in report and "peer column is empty" not in report
    assert not list(tmp_path.glob("scratch-*"))


def test_texts_beside_a_peer(config, tmp_path):
    (tmp_path / "lm_eval_score.py").write_text(FAKE.replace('endswith("Answer:")', 'strip()'))
    fields = dict(source=config.task.source, template="{text}", label="label", labels=())
    small = {f"texts.task.{name}": value for name, value in fields.items()}
    small |= {"texts.task.group": "", "texts.task.id": "", "texts.test_items": 4}
    config = override(config, small | {"cases": ("texts",), "peers_python": sys.executable})
    benchmark(config, tmp_path, peers=tmp_path)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    scoring, apart = result["measures"]
    assert scoring["peer"] == 1e6 and scoring["ours"] > 0 and scoring["reached"]
    assert 1e-3 < apart["ours"] < math.inf and apart["reached"] is False


def test_generating_beside_a_peer(config, tmp_path):
    (tmp_path / "hf_generate.py").write_text("""
import json, sys
job = json.load(open(sys.argv[1]))
ids = [[7] * job["new_tokens"] for _ in job["prompts"]]
answer = {"numbers": {"seconds_1": 5e5, "seconds_3": 1e6}, "values": {"ids": ids}}
json.dump(answer, open(sys.argv[2], "w"))
""")
    small = {"generate.new_tokens": 4, "generate.batch_sizes": (1, 3)}
    config = override(config, small | {"cases": ("generate",), "peers_python": sys.executable})
    benchmark(config, tmp_path, peers=tmp_path)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    one, three, differ = result["measures"]
    assert one["peer"] == 5e5 and one["reached"] and three["peer"] == 1e6
    assert three["ours"] > 0 and differ["ours"] == 3 and differ["reached"] is False
    assert "texts that differ" in (tmp_path / "report.md").read_text()


def test_kept_states_change_no_loss(config, tmp_path):
    small = {"states.examples": 8, "states.epochs": 2, "states.learning_rate": 1e-2}
    benchmark(override(config, small | {"cases": ("states",)}), tmp_path, peers=SCRIPTS)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    epoch, processor, fill, apart = result["measures"]
    assert all(m["ours"] > 0 for m in (epoch, processor, fill)) and epoch["ratio"] > 0
    assert apart["ours"] < 1e-4 and "computed once" in (tmp_path / "report.md").read_text()


def test_without_peers_ours_is_measured_and_the_report_says_how_to_get_them(config, tmp_path):
    config = override(config, {"cases": ("compile",)})
    benchmark(config, tmp_path, peers=SCRIPTS)
    result = json.loads((tmp_path / "benchmark.json").read_text())
    first, second = result["measures"]
    assert second["ours"] > 0 and 0 < first["ours"] < 15 and first["reached"]
    report = (tmp_path / "report.md").read_text()
    assert "peer column is empty" in report and "pip install torch transformers peft" in report


def test_a_peer_can_train_the_same(config, tmp_path):
    """A plain loop over what the peer is given, padded and unpacked, has the losses of `fit`."""
    size = {"examples": config.lora.examples, "epochs": config.lora.epochs}
    job = {"config": config.to_dict(), "directory": str(tmp_path), **size}
    job |= {"dtype": "float32", "quantize": ""}
    peer, ours = training.export(job)["values"], training.measure(job)["values"]["losses"]
    assert sorted(i for batch in peer["batches"][:3] for i in batch) == list(range(12))
    losses = plain_loop(training._start(config, 12, "float32"), peer)
    np.testing.assert_allclose(ours, np.reshape(losses, (2, 3)).mean(1), atol=1e-4)
    assert abs(losses[0] - losses[-1]) > 1e-2


def plain_loop(start, peer) -> list[float]:
    moving, frozen = tree.split(start.adapted.params, start.labels)
    network, losses = start.adapted.network, []

    def objective(moving, ids, mask, answer):
        params, tokens = tree.merge(frozen, moving), Tokens.from_mask(mask)
        x = network.trunk(params, network.bottom(params, ids, tokens), tokens)
        logp = jax.nn.log_softmax(network.readout(params, x[:, :-1]))
        taken = jnp.take_along_axis(logp, ids[:, 1:, None], -1)[..., 0]
        return -jnp.sum(taken * answer[:, 1:]) / jnp.sum(answer[:, 1:])

    step = jax.jit(jax.value_and_grad(objective))
    clip = optax.clip_by_global_norm(peer["clip_norm"])
    adam = optax.chain(clip, optax.scale_by_adam())
    state = adam.init(moving)
    for chosen, rate in zip(peer["batches"], peer["learning_rates"], strict=True):
        loss, grads = step(moving, *padded([peer["examples"][i] for i in chosen]))
        updates, state = adam.update(grads, state)
        moving = jax.tree.map(lambda p, u, rate=rate: p - rate * u, moving, updates)
        losses.append(float(loss))
    return losses


def padded(examples) -> tuple[np.ndarray, ...]:
    """ids, mask and answer-token mask, [5, 64]."""
    out = np.zeros((3, 5, 64), np.int32)
    for i, e in enumerate(examples):
        row, n = e["context"] + e["answer"], len(e["context"])
        out[0, i, : len(row)] = row
        out[1, i, : len(row)] = 1
        out[2, i, n : len(row)] = 1
    return out[0], out[1].astype(bool), out[2]


def test_the_adapter_is_a_peft_directory(config, tmp_path):
    job = {"config": config.to_dict(), "directory": str(tmp_path), "examples": 4, "epochs": 1}
    training.export(job)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    params = tree.flatten(training._start(config, 4, "float32").adapted.params)
    assert len(tensors) == 4 * 2 * 2
    prefix = "base_model.model.model.layers.3.self_attn.v_proj"
    a, b = tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"]
    np.testing.assert_array_equal(a, np.asarray(params["layers_3/attn/v/lora_a"]).T)
    assert a.shape == (8, 48) and b.shape == (16, 8) and not b.any()
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert said["target_modules"] == ["q_proj", "v_proj"] and said["r"] == 8
    assert said["lora_alpha"] == 16 and said["peft_type"] == "LORA"


@pytest.mark.parametrize(
    "field, value, told",
    [
        ("cases", ("icl", "lore"), "cases names 'lore'; the nearest case is 'lora'"),
        ("peers_python", "/nowhere/python", "peers_python=/nowhere/python is no program"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(config, tmp_path, field, value, told):
    with pytest.raises(UserError, match=told):
        benchmark(override(config, {field: value}), tmp_path, peers=SCRIPTS)
    assert not list(tmp_path.iterdir())


def test_a_failing_process_is_told_in_a_line(config, tmp_path):
    config = override(config, {"cases": ("compile",), "model": str(tmp_path / "none")})
    with pytest.raises(UserError, match=r"00-lora failed.*none.*does not exist.*logs") as error:
        benchmark(config, tmp_path, peers=SCRIPTS)
    assert "\n" not in str(error.value)


def test_peers_know_nothing_of_lmlite():
    scripts = sorted(SCRIPTS.glob("*.py"))
    assert [s.stem for s in scripts] == ["hf_generate", "lm_eval_score", "peft_lora"]
    for script in scripts:
        assert not imported(script) & {"lmlite", "jax", "flax", "configs", "experiments"}


def imported(path: Path) -> set[str]:
    """The packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_default_cases_exist():
    assert set(defaults.get_config().cases) <= set(CASES)
