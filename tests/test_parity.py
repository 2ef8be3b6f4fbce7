"""Every family against `transformers`: results to 1e-4 in float32, and weights there and back.

Stored references; where torch and transformers are installed, the live models as well.
"""

import dataclasses
import json

import jax
import numpy as np
import parity
import pytest
from safetensors.numpy import load_file

import lmlite
from lmlite.decode import generate

CASES = parity.cases()
STORED = np.load(parity.REFERENCES / "parity.npz")
# Heads of BERT that no logits depend on: next sentences, and the tied bias beside an untied one.
UNREAD = ("cls.seq_relationship.", "cls.predictions.bias")
TOLERANCE = dict(atol=1e-4, rtol=1e-4)


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """The name of a case, and its directory."""
    parity.write(tmp_path / "a", **CASES[request.param])
    return request.param, tmp_path / "a"


def results(lm) -> dict[str, np.ndarray]:
    """What the stored references hold, as far as the model has it."""
    found = {"hidden": lm.hidden(parity.IDS)}
    if getattr(lm.config, "classified", False):
        found["classes"] = lm.classify(parity.IDS)
    if getattr(lm.config, "masked_head", True):
        found["logits"] = lm.logits(parity.IDS, target_ids=targets(lm))
    if getattr(lm.config, "pooler", False):
        x = lm.params["pooler"]
        found["pooled"] = np.tanh(found["hidden"][:, 0] @ x["kernel"] + x["bias"])
    return found


def generated(lm) -> list[int]:
    endless = dataclasses.replace(lm, config=dataclasses.replace(lm.config, eos_ids=()))
    return generate(endless, parity.PROMPT.tolist(), max_new_tokens=parity.NEW_TOKENS)[0].ids


def targets(lm):
    return parity.TARGET_IDS if lm.config.cross else None


def test_results_equal_those_of_transformers(case):
    name, folder = case
    lm = lmlite.load(folder)
    found = results(lm)
    stored = {key.partition("/")[2]: x for key, x in STORED.items() if key.startswith(f"{name}/")}
    assert stored
    if (ids := stored.pop("generated", None)) is not None:
        assert generated(lm) == ids.tolist()
    for key, expected in stored.items():
        assert np.abs(expected).max() > 0.1  # else 1e-4 would say little
        np.testing.assert_allclose(found[key], expected, err_msg=key, **TOLERANCE)


def test_padding_on_either_side_changes_nothing(case):
    _, folder = case
    lm = lmlite.load(folder)
    ids, n = parity.IDS[:, :30], 30
    padded = np.full((3, 48), lm.config.pad_id or 0)
    mask = np.zeros((3, 48), bool)
    for row, start in enumerate((0, 7, 18)):
        padded[row, start : start + n], mask[row, start : start + n] = ids[0], True
    expected = lm.hidden(ids)
    for row, states in enumerate(np.asarray(lm.hidden(padded, mask))):
        np.testing.assert_allclose(states[mask[row]], expected[0], atol=1e-5)
    if lm.config.cross:
        expected = lm.logits(ids, target_ids=parity.TARGET_IDS)
        found = lm.logits(padded, mask, np.repeat(parity.TARGET_IDS, 3, 0))
        np.testing.assert_allclose(found, np.repeat(expected, 3, 0), atol=1e-4)


def test_saved_weights_are_the_loaded_ones(case):
    _, folder = case
    lm = lmlite.load(folder)
    lm.save(folder.parent / "b")
    again = lmlite.load(folder.parent / "b")
    assert again.config == lm.config
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), lm.params, again.params))
    old, new = (load_file(folder.parent / x / "model.safetensors") for x in "ab")
    assert new.keys() <= old.keys()
    assert all(name.startswith(UNREAD) for name in old.keys() - new.keys())
    for name, tensor in new.items():
        np.testing.assert_array_equal(tensor, old[name], err_msg=name)


def test_transformers_opens_what_is_saved(case):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    _, folder = case
    lm = lmlite.load(folder)
    lm.save(folder.parent / "b")
    architecture = json.loads((folder.parent / "b" / "config.json").read_text())["architectures"][0]
    cls = getattr(transformers, architecture)
    model, info = cls.from_pretrained(folder.parent / "b", output_loading_info=True)
    assert all(name.startswith(UNREAD) for name in info["missing_keys"])
    assert all("pooler" in name for name in info["unexpected_keys"])  # which few classes have
    inputs = {"input_ids": torch.from_numpy(parity.IDS)}
    if lm.config.cross:
        inputs["decoder_input_ids"] = torch.from_numpy(parity.TARGET_IDS)
    with torch.no_grad():
        out = model.eval()(**inputs)
    key = "logits" if "logits" in out else "last_hidden_state"
    ours = "classes" if architecture.endswith("Classification") else key
    found = results(lm)[{"last_hidden_state": "hidden"}.get(ours, ours)]
    np.testing.assert_allclose(found, out[key].numpy(), **TOLERANCE)
