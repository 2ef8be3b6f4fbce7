"""Turns of rotary embeddings: sine and cosine of position times frequency, wherever a row is."""

import jax
import numpy as np
import pytest

from lmlite.models.rope import frequencies, turns


@pytest.mark.parametrize("start", [0, 1, 5000])
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_turns(start, factor):
    freq = frequencies(16, 1e4)
    for length in (1, 7):
        position = np.arange(start, start + length)[None]
        found = jax.jit(lambda p: turns(p, freq, factor))(position.astype(np.int32))
        angle = np.float32(position[..., None]) * freq
        np.testing.assert_allclose(found.sin, factor * np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(found.cos, factor * np.cos(angle), atol=1e-6)
