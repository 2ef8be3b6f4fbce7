"""The tiny models of the parity tests: weights that a name and a shape determine, and the inputs.

`references/parity.json` holds, a case, the config.json and the tensor names and shapes as
`transformers` writes them; `references/parity.npz` its results. See `references/make_parity.py`.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

REFERENCES = Path(__file__).parent / "references"
IDS = np.random.default_rng(0).integers(3, 40, (1, 48))
PROMPT = IDS[:, :8]
NEW_TOKENS = 64
TARGET_IDS = np.random.default_rng(1).integers(3, 40, (1, 20))


def cases() -> dict[str, dict]:
    """Case -> {"config": ..., "shapes": {tensor name: shape}, "inputs": ...}."""
    return json.loads((REFERENCES / "parity.json").read_text())


def tensor(name: str, shape: list[int]) -> np.ndarray:
    """Normal, float32; about 1 for the scales of norms, wide enough that every term shows."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    scale = len(shape) == 1 and not name.endswith("bias")
    return (scale + draw * (0.1 if len(shape) == 1 else 0.2)).astype(np.float32)


def write(folder: Path, config: dict, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A Hugging Face directory; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor(name, shape) for name, shape in shapes.items()}
    (folder / "config.json").write_text(json.dumps(config))
    save(folder, tensors)
    return tensors


def save(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes the directory's weights."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
