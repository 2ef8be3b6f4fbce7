"""The export command: from a tuning run or an adapter directory to what others open."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_lm import write_model, write_task

import lmlite
from configs import export as defaults
from configs import finetune
from lmlite import peft
from lmlite.compare import compare
from lmlite.config import override
from lmlite.errors import UserError
from lmlite.export import _tuples, export
from lmlite.workdir import read_config, write_config

IDS = np.random.default_rng(1).integers(0, 256, (2, 9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and a finished tuning run."""
    folder = tmp_path_factory.mktemp("export")
    write_model(folder / "model", layers=1)
    write_task(folder / "task.csv")
    config = finetune.get_config(
        task=f"csv:{folder / 'task.csv'}", model=str(folder / "model"), method="ia3"
    )
    small = {
        "task.labels": ("bad", "good"),
        "task.choices": ("bad", "good"),
        "examples": 12,
        "test_items": 4,
        "arms.ia3.train.epochs": 1,
        "arms.ia3.optim.learning_rate": 0.1,
    }
    config = override(config.lock(), small)
    write_config(folder / "run", config)
    compare(config, folder / "run", models=folder / "run" / "model")
    return folder


def run(workdir, source, **fields):
    config = override(defaults.get_config(source=str(source)).lock(), fields)
    export(config, workdir)
    return json.loads((workdir / "export.json").read_text())


def test_a_run_becomes_a_peft_directory_a_model_and_lora(folder, tmp_path):
    base, tuned = (lmlite.load(folder / name) for name in ("model", "run/model/ia3-0"))
    wanted = tuned.logits(IDS)
    assert np.abs(wanted - base.logits(IDS)).max() > 1e-2
    record = run(tmp_path / "a", folder / "run")
    assert record["method"] == "IA3" and record["directory"] == str(tmp_path / "a" / "adapter")
    found = lmlite.load_adapter(base, tmp_path / "a" / "adapter")
    np.testing.assert_allclose(found.logits(IDS), wanted, rtol=1e-4, atol=1e-3)
    run(tmp_path / "b", folder / "run", format="merged")
    found = lmlite.load(tmp_path / "b" / "model")
    np.testing.assert_array_equal(found.logits(IDS), wanted)
    # From the adapter directory just written; its config names the base model.
    record = run(tmp_path / "c", tmp_path / "a" / "adapter", format="lora", rank=48)
    assert record["relative_error"] < 1e-4 and set(record["layers"]) == {
        "layers_0/attn/k", "layers_0/attn/v", "layers_0/mlp/down",
    }  # fmt: skip
    found = peft.load_adapter(base, tmp_path / "c" / "adapter")
    np.testing.assert_allclose(found.logits(IDS), wanted, rtol=1e-4, atol=1e-3)


def test_an_adapter_belongs_to_its_model_and_rows(folder, tmp_path):
    """Neither exported nor gone on with where the base was trained anew under the same name."""
    shutil.copytree(folder / "run", tmp_path / "run")
    lm, place = lmlite.load(folder / "model"), folder / "model"
    moved = jax.tree.map(lambda x: x * 1.01, lm.params)
    kept = {file: file.read_bytes() for file in place.iterdir()}
    try:
        dataclasses.replace(lm, params=moved).save(place)
        with pytest.raises(UserError, match="the model, rows or prompts have changed since"):
            run(tmp_path / "a", tmp_path / "run")
        config = ConfigDict(_tuples(read_config(tmp_path / "run")["config"]))
        write_config(tmp_path / "run", config)
        with pytest.raises(UserError, match="the model, rows, texts or prompts have changed"):
            compare(config, tmp_path / "run")
    finally:
        for file, content in kept.items():
            file.write_bytes(content)
    run(tmp_path / "b", tmp_path / "run")


def test_what_cannot_be_exported_is_told(folder, tmp_path):
    with pytest.raises(UserError, match="neither a workdir .* nor a PEFT adapter"):
        run(tmp_path, tmp_path)
    with pytest.raises(UserError, match="format='gguf' is unknown"):
        run(tmp_path, folder / "run", format="gguf")
    with pytest.raises(UserError, match=r"run='ia3-7' is not one of .*\['ia3-0'\]"):
        run(tmp_path, folder / "run", run="ia3-7")
    (tmp_path / "pretrained").mkdir()
    told = '{"config": {"steps": 3}, "earlier": []}'
    (tmp_path / "pretrained" / "config.json").write_text(told)
    (tmp_path / "pretrained" / "results.jsonl").write_text("")
    with pytest.raises(UserError, match="is no workdir of experiments.finetune or compare"):
        run(tmp_path, tmp_path / "pretrained")
    rows = folder / "run" / "results.jsonl"
    kept = rows.read_text()
    rows.write_text("")
    with pytest.raises(UserError, match="not finished"):
        run(tmp_path, folder / "run")
    rows.write_text(kept)
