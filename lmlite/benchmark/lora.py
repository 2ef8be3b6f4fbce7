"""LoRA training against PEFT: same initial weights, batches, learning rates and clipping."""

from lmlite.benchmark.measure import Measure, largest_difference
from lmlite.benchmark.process import Answer, Bench
from lmlite.models.quantized import FORMATS

_PART_OF_MEMORY = 0.8  # of the peer's, at most


def case(bench: Bench) -> list[Measure]:
    """Seconds and memory in float32, bfloat16 and on quantized bases, and how far the float32
    losses are apart.
    """
    ours: dict[str, Answer] = {}
    peer: dict[str, Answer | None] = dict.fromkeys(("float32", "bfloat16"))
    size = _size(bench)
    if bench.has_peers:
        adapter = str(bench.scratch / "adapter")
        job = bench.ours("export_adapter", directory=adapter, **size).values
        job |= {"model": bench.model, "adapter": adapter}
    for dtype in peer:
        ours[dtype] = _ours(bench, dtype, "")
        if bench.has_peers:
            peer[dtype] = bench.peer("peft_lora", dtype=dtype, **job)
    held = {quantize: _ours(bench, "bfloat16", quantize) for quantize in FORMATS}
    return [
        _seconds("float32", ours["float32"], peer["float32"], 2),
        _seconds("float32, with compilation", ours["float32"], peer["float32"], compiled=True),
        _seconds("float32, peer bfloat16", ours["float32"], peer["bfloat16"], 1),
        _seconds("bfloat16", ours["bfloat16"], peer["bfloat16"], 1),
        *(
            _memory(f"peak memory, {dtype}", ours[dtype], peer[dtype], 1 / _PART_OF_MEMORY)
            for dtype in peer
        ),
        *(_seconds(f"bfloat16, base in {name}", found) for name, found in held.items()),
        *(_memory(f"peak memory, base in {name}", found) for name, found in held.items()),
        Measure("lora", "losses apart by, float32", "nats", _apart(ours, peer), at_most=1e-3),
    ]


def _ours(bench: Bench, dtype: str, quantize: str) -> Answer:
    return bench.ours("lora", cache="lora", dtype=dtype, quantize=quantize, **_size(bench))


def first_step(bench: Bench) -> list[Measure]:
    """What compiling a training step takes, without and with the programs of an earlier process."""
    job = dict(examples=bench.config.lora.batch_size, epochs=1, dtype="float32", quantize="")
    first, second = (
        bench.ours("lora", cache="first-step", **job).numbers["compile_seconds"] for _ in range(2)
    )
    return [
        Measure("compile", "first training step", "s", first, at_most=15),
        Measure("compile", "in a second process", "s", second),
    ]


def _size(bench: Bench) -> dict[str, int]:
    return dict(examples=bench.config.lora.examples, epochs=bench.config.lora.epochs)


def _seconds(what, ours, peer=None, at_least=None, compiled=False) -> Measure:
    seconds = ours.numbers["train_seconds"] + compiled * ours.numbers["compile_seconds"]
    return Measure("lora", what, "s", seconds, peer and peer.numbers["train_seconds"], at_least)


def _memory(what, ours, peer=None, at_least=None) -> Measure:
    mib, theirs = (a and a.numbers["peak_kib"] / 1024 for a in (ours, peer))
    return Measure("lora", what, "MiB", mib, theirs, at_least)


def _apart(ours, peer) -> float | None:
    """The largest difference of the mean loss of an epoch."""
    if peer["float32"] is None:
        return None
    mine, steps = ours["float32"].values["losses"], peer["float32"].values["losses"]
    each = len(steps) // len(mine)
    theirs = [sum(steps[i : i + each]) / each for i in range(0, len(steps), each)]
    return largest_difference(mine, theirs)
