"""The model of the default comparison gives the logits that transformers gives for its weights.

Stored values; where torch and transformers are installed, the live model as well.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

import lmlite

STORED = np.load(Path(__file__).parent / "references" / "smollm2.npz")
EACH = 97  # of the logits one is stored


@pytest.fixture(scope="module")
def lm():
    return lmlite.load("package:smollm2-135m-instruct")


def test_logits_equal_those_of_transformers(lm):
    """Both texts in one batch, the shorter one padded on the left."""
    rows = [STORED[f"{i}/ids"] for i in (0, 1)]
    longest = max(map(len, rows))
    ids = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows])
    mask = np.stack([np.arange(longest) >= longest - len(row) for row in rows])
    for i, logits in enumerate(np.asarray(lm.logits(ids, mask))):
        logits = logits[longest - len(rows[i]) :]
        np.testing.assert_allclose(logits[:, ::EACH], STORED[f"{i}/logits"], atol=2e-4)
        total = jax.nn.logsumexp(logits, axis=-1)
        np.testing.assert_allclose(total, STORED[f"{i}/total"], atol=1e-4)


def test_bfloat16_is_as_far_from_float32_as_its_digits_say(lm):
    """Its error is reported in the README: 2 to 3 digits of logits of size 20."""
    low, ids = lmlite.load("package:smollm2-135m-instruct", "bfloat16"), STORED["0/ids"][None]
    exact, found = (np.asarray(jax.nn.log_softmax(m.logits(ids))) for m in (lm, low))
    chosen = np.take_along_axis(found - exact, exact.argmax(-1)[..., None], -1)
    off = np.abs(chosen)
    mean, most = off.mean(), off.max()
    print(f"bfloat16: log p of the likeliest tokens off by {mean:.4f}, {most:.4f} at most")
    assert 1e-4 < off.mean() < 0.05
    assert (found.argmax(-1) == exact.argmax(-1)).mean() > 0.95


def test_the_live_model_gives_the_same(lm, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    lm.save(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = STORED["0/ids"][None]
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(lm.logits(ids), expected, atol=2e-4)
