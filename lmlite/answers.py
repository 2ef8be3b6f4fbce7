"""Answers kept while an evaluation runs: one that was stopped computes only what is missing.

The unit is what one call of the model computes, so an evaluation that goes on plans, packs and
compiles as one that was never stopped, and its scores are the same bit for bit.
"""

import dataclasses
import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from lmlite.errors import UserError
from lmlite.runtime import COSTS, Meter
from lmlite.workdir import write_bytes

PORTION_SECONDS = 2.0  # of computing between two writes: a write takes some milliseconds
_COSTS = "costs"  # beside the answers of a file


class Answers:
    """The answers of one fitted job, in portions, each a file under `folder`.

    folder: None keeps nothing, and everything is computed. by: arrays that tell this fit's answers
    from those of another. earlier: what the answers that were found here had cost. Memory holds the
    digests of what is known and one portion. Raises UserError for a file that cannot be read.
    """

    def __init__(self, folder: Path | None = None, by: Iterable[np.ndarray] = ()):
        self.earlier = Meter()
        self._folder = folder
        self._fit = _digest(b"", by)
        self._pending: dict[str, tuple[np.ndarray, Meter]] = {}
        self._files: dict[str, Path] = {}  # where each answer is
        self._owed: dict[str, Meter] = {}  # costs of other processes, until their answer is used
        self._open: tuple[Path | None, dict[str, np.ndarray]] = None, {}
        for path in sorted(folder.glob("*.npz")) if folder else ():
            keys, costs = self._index(path)
            self._files |= dict.fromkeys(keys, path)
            self._owed |= zip(keys, costs, strict=True)

    def of(
        self, asked: Iterable[np.ndarray], compute: Callable[[], np.ndarray], meter: Meter
    ) -> np.ndarray:
        """What `compute` gives, under `meter`, or gave to the same question before.

        asked: all that the answer depends on beside the fit.
        """
        if self._folder is None:
            return compute()
        key = _digest(self._fit, asked).hex()
        if key in self._pending:
            return self._pending[key][0]
        if key in self._files:
            self._count(self._owed.pop(key, Meter()))
            return self._read(self._files[key])[key]
        before, start = dataclasses.replace(meter), time.perf_counter()
        answer = np.asarray(compute())
        compiling = meter.compile_seconds - before.compile_seconds
        seconds = time.perf_counter() - start - compiling
        flops, moved = meter.flops - before.flops, meter.bytes - before.bytes
        self._pending[key] = answer, Meter(flops, seconds, compiling, moved)
        if sum(cost.seconds for _, cost in self._pending.values()) >= PORTION_SECONDS:
            self._write()
        return answer

    def _write(self) -> None:
        """The answers since the last write, as a file that is whole or absent."""
        path = self._folder / f"{next(iter(self._pending))}.npz"
        costs = [[getattr(cost, name) for name in COSTS] for _, cost in self._pending.values()]
        out = io.BytesIO()
        answers = {key: answer for key, (answer, _) in self._pending.items()}
        np.savez(out, **answers, **{_COSTS: np.array(costs, np.float64)})
        write_bytes(path, out.getvalue())
        self._files |= dict.fromkeys(answers, path)
        self._pending = {}

    def _count(self, cost: Meter) -> None:
        for name in COSTS:
            setattr(self.earlier, name, getattr(self.earlier, name) + getattr(cost, name))

    def _index(self, path: Path) -> tuple[list[str], list[Meter]]:
        """The keys of a file in their order, and what each answer had cost."""
        arrays = self._read(path)
        if _COSTS not in arrays:
            raise UserError(f"{path} cannot be read (it holds no {_COSTS}); delete it")
        costs = [Meter(*map(float, row)) for row in arrays[_COSTS]]
        return [key for key in arrays if key != _COSTS], costs

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        if self._open[0] != path:
            try:
                with np.load(path) as file:
                    self._open = path, dict(file)
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                raise UserError(f"{path} cannot be read ({error}); delete it") from error
        return self._open[1]


def remove(folder: Path) -> None:
    """Removes a job's answers, when its result is recorded, and the folder above if it is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _digest(start: bytes, arrays: Iterable[np.ndarray]) -> bytes:
    digest = hashlib.sha256(start)
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()


NOT_KEPT = Answers()  # everything is computed
