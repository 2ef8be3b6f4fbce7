"""The frozen part of the trunk, computed once: the state entering the first layer that trains.

D width, R rows, T tokens a row.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from lmlite import tree
from lmlite.data.item import Item
from lmlite.data.pack import Batch, pack
from lmlite.data.rows import layout
from lmlite.models.lm import LM
from lmlite.models.network import Network
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, Program
from lmlite.tree import FROZEN

_BELOW = ("embed", "positions/", "types/", "relative/", "encoder/")  # what every layer rests on
_LAYER = re.compile(r"layers_(\d+)/")
MEMORY_BYTES = 2 * 2**30
DISK_BYTES = 16 * 2**30


def first_trained_layer(labels: Mapping[str, str], layers: int) -> int:
    """The lowest layer that a trained parameter can change; `layers` where none is in the stack."""
    trained = [path for path, label in labels.items() if label != FROZEN]
    if any(path.startswith(_BELOW) for path in trained):
        return 0
    found = [_LAYER.match(path) for path in trained]
    return min((int(match[1]) for match in found if match), default=layers)


class StateStore:
    """States entering a layer, kept for the epochs, seeds and arms that need the same ones.

    The same: equal weights below the layer (by content), module, hooks, dtype, items and layer.
    They are held in memory, where the oldest make room. An array larger than all of `memory_bytes`
    goes to a file under `directory` (None: nowhere) and is read through a memory map; there too the
    oldest make room, and what is larger than `disk_bytes` is not kept at all.
    """

    def __init__(
        self,
        directory: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ):
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes if directory else 0
        self._held: dict[str, np.ndarray] = {}
        self._digests: dict[int, tuple[jax.Array, bytes]] = {}  # by id, the leaf kept alive

    def states(
        self, lm: LM, frozen: Mapping, items: Sequence[Item], stop: int, meter: Meter
    ) -> np.ndarray | None:
        """float32[total tokens, D]: what enters layer `stop`, indexed by `Batch.origin`.

        frozen: the leaves of lm.params that do not train. None where nothing below `stop` is worth
        keeping (stop 0), it would not fit, or an encoder would have to be kept as well.
        """
        shape = sum(len(item.ids) for item in items), lm.config.width
        size = 4 * shape[0] * shape[1]
        if stop == 0 or lm.config.cross or size > max(self._memory_bytes, self._disk_bytes):
            return None
        key = self._key(lm, frozen, items, stop)
        if size > self._memory_bytes:
            return self._on_disk(key, shape, size, lambda out: _fill(out, lm, items, stop, meter))
        if key not in self._held:
            self._make_room(size)
            out = np.zeros(shape, np.float32)
            _fill(out, lm, items, stop, meter)
            self._held[key] = out
        return self._held[key]

    def _make_room(self, size: int) -> None:
        while self._held and sum(x.nbytes for x in self._held.values()) + size > self._memory_bytes:
            del self._held[next(iter(self._held))]

    def _on_disk(self, key: str, shape: tuple[int, int], size: int, fill) -> np.ndarray:
        """The file's array, computed first where there is none; a file is whole or absent."""
        path = self._directory / f"{key}.npy"
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            files = sorted(self._directory.glob("*.npy"), key=lambda file: file.stat().st_mtime)
            while files and sum(file.stat().st_size for file in files) + size > self._disk_bytes:
                files.pop(0).unlink()
            part = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                out = np.lib.format.open_memmap(part, "w+", np.float32, shape)
                fill(out)
                out.flush()
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        return np.load(path, mmap_mode="r")

    def _key(self, lm: LM, frozen: Mapping, items: Sequence[Item], stop: int) -> str:
        """A digest of everything the states depend on."""
        leaves = {p: leaf for p, leaf in tree.flatten(frozen).items() if _below(p, stop)}
        hooks = [hook for hook in lm.hooks if any(_touches(hook.pattern, p) for p in leaves)]
        code = lm.module.config, lm.module.dtype, hooks, lm.virtual, stop
        digest = hashlib.sha256(repr(code).encode())
        for path, leaf in leaves.items():
            digest.update(path.encode() + self._digest(leaf))
        for item in items:
            for array in item[:3]:
                digest.update(np.int64(len(array)).tobytes() + array.tobytes())
        return digest.hexdigest()

    def _digest(self, leaf: jax.Array) -> bytes:
        """Of a leaf's content, computed once a leaf."""
        if id(leaf) not in self._digests:
            array = np.ascontiguousarray(leaf)
            head = f"{array.dtype}{array.shape}".encode()
            digest = hashlib.sha256(head + array.view(np.uint8).data)
            self._digests[id(leaf)] = leaf, digest.digest()
        return self._digests[id(leaf)][1]


def _below(path: str, stop: int) -> bool:
    """Whether the parameter may count for what enters layer `stop`."""
    layer = _LAYER.match(path)
    return layer is None or int(layer[1]) < stop


def _touches(pattern: str, path: str) -> bool:
    """Whether a hook wraps one of the modules that the parameter lies in."""
    parts = path.split("/")
    return any(re.fullmatch(pattern, "/".join(parts[:n])) for n in range(1, len(parts)))


def _bottom_to(network: Network, stop: int, params, batch: Batch):
    tokens = Tokens(batch.position, batch.segment, batch.branch)
    x = network.bottom(params, batch.ids, tokens)
    return network.trunk(params, x, tokens, stop=stop)


_run = Program(_bottom_to, static=2)


def _fill(out: np.ndarray, lm: LM, items: Sequence[Item], stop: int, meter: Meter) -> None:
    """Writes the states of the items, end to end."""
    for batch in pack(items, *layout(items, lm.config.max_positions)):
        x = np.asarray(_run(meter, lm.network, stop, lm.params, batch))
        held = batch.segment > 0
        out[batch.origin[held]] = x[held]
