"""Compiled programs and what they cost: FLOPs, bytes, compile seconds, peak memory; streams."""

import ctypes
import dataclasses
import gc
import resource
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lmlite.errors import UserError
from lmlite.flops import repeated_flops

COSTS = ("flops", "seconds", "compile_seconds", "bytes")  # what a meter adds up


@dataclasses.dataclass
class Meter:
    """What the programs run under it have cost so far.

    flops: floating-point operations of all calls, from XLA's analysis of the compiled program and
    the lengths of its loops.
    seconds: wall time of the calls without compilation. compile_seconds: tracing and compiling.
    bytes: what their operations read and write, from the same analysis. It knows no caches, so it
    is more than what the memory moves; and it leaves out the turns of a loop after the first,
    while it counts whole the arrays that a loop takes and leaves.
    owed: seconds by which a share of work done for several arms exceeds what it took under this
    meter; the wall time of the calls plus this is what the arm has to account for. together: how
    many arms had such work in common.
    """

    flops: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    bytes: float = 0.0
    owed: float = 0.0
    together: int = 1

    def share(self, work: "Meter", wall: float, arms: int, here: bool) -> None:
        """Adds an equal share of work that `arms` arms have in common.

        wall: its seconds in all, compilation included; here: whether they passed under this meter.
        """
        for name in COSTS:
            setattr(self, name, getattr(self, name) + getattr(work, name) / arms)
        self.owed += wall / arms - (wall if here else 0.0)
        self.together = arms


class Compiled(NamedTuple):
    """An executable, and the FLOPs and bytes of one call: see `Meter`."""

    call: Callable
    flops: float
    bytes: float


# XLA's usual order of a CPU program holds a quarter more at once and is no faster.
_OPTIONS = {"cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}}


_KEPT = 8  # compiled programs of a function


class Program:
    """A jitted function compiled ahead of time, one program a set of shapes, metered at each call.

    The first `static` arguments are compile-time constants (hashable); `donate` names arguments
    whose buffers the call may reuse. Calls block until the result is there: the meter's seconds are
    then the work's own. The programs of the last `_KEPT` sets of shapes are kept: a long comparison
    compiles hundreds, and a process can map only so much code.
    """

    def __init__(self, function: Callable, static: int = 0, donate: tuple[int, ...] = ()):
        self._static = static
        self._jit = jax.jit(function, static_argnums=tuple(range(static)), donate_argnums=donate)
        self._compiled: dict = {}

    def __call__(self, meter: Meter, *args: Any) -> Any:
        compiled = self.compile(meter, *args)
        start = time.perf_counter()
        result = jax.block_until_ready(compiled.call(*args[self._static :]))
        meter.seconds += time.perf_counter() - start
        meter.flops += compiled.flops
        meter.bytes += compiled.bytes
        return result

    def compile(self, meter: Meter, *args: Any) -> Compiled:
        """The executable for arguments like these."""
        leaves, structure = jax.tree.flatten(args[self._static :])
        shapes = tuple(map(_shape, leaves))
        key = args[: self._static], structure, shapes
        if key in self._compiled:
            self._compiled[key] = self._compiled.pop(key)  # the last to be dropped
        else:
            start = time.perf_counter()
            traced = self._jit.trace(*args)
            compiled = traced.lower().compile(_OPTIONS.get(jax.default_backend()))
            return_freed_memory()
            meter.compile_seconds += time.perf_counter() - start
            found = compiled.cost_analysis() or {}
            flops, size = (float(found.get(name, 0.0)) for name in ("flops", "bytes accessed"))
            flops += repeated_flops(traced.jaxpr.jaxpr)
            self._compiled[key] = Compiled(compiled, flops, size)
            while len(self._compiled) > _KEPT:
                del self._compiled[next(iter(self._compiled))]
        return self._compiled[key]


def _shape(leaf: Any) -> tuple:
    """Shape and dtype, of an array as it says them: to ask JAX takes ten times as long."""
    if isinstance(leaf, jax.Array | np.ndarray):
        return leaf.shape, leaf.dtype
    return jax.numpy.shape(leaf), jax.numpy.result_type(leaf)


class PeakMemory:
    """The most memory held since it was made, in bytes.

    On an accelerator, the device allocator's own peak (of the process: it cannot be reset). On CPU,
    the process's resident memory; Linux lets the high-water mark be reset, elsewhere it is the
    peak since the process began.
    """

    def __init__(self):
        gc.collect()
        return_freed_memory()  # or it would be counted as this measurement's
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass  # not Linux, or not ours to write: the mark covers the whole process

    def read(self) -> int:
        """Peak bytes so far."""
        stats = jax.local_devices()[0].memory_stats()
        if stats and "peak_bytes_in_use" in stats:
            return int(stats["peak_bytes_in_use"])
        try:
            status = Path("/proc/self/status").read_text()
            return 1024 * int(status.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else 1024 * peak


def return_freed_memory() -> None:
    """Gives back to the system what glibc keeps: a compilation leaves hundreds of megabytes."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library


def data_parallel(rows: int) -> tuple[NamedSharding, NamedSharding]:
    """Over all local devices: (a copy on each, a batch of `rows` split by its first axis).

    Raises UserError where the rows do not divide.
    """
    devices = jax.local_devices()
    if rows < 1 or rows % len(devices):
        raise UserError(
            f"batch_size={rows} rows do not divide over {len(devices)} devices; "
            f"use {max(1, rows // len(devices)) * len(devices)}"
        )
    mesh = Mesh(np.array(devices), ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))


def stream(seed: int, name: str, step: int = 0) -> jax.Array:
    """The random key of a named stream at a step: a pure function of its three arguments."""
    return jax.random.fold_in(fold_name(jax.random.key(seed), name), step)


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """A key of its own for `name`."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
