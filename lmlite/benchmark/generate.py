"""Greedy generation, against the same model in `transformers`.

Both make `new_tokens` tokens after every prompt, with no token that ends a text, from tokens that
lie ready. Of three runs after the one that compiles, the fastest counts, on both sides.
"""

import dataclasses
import time

from ml_collections import ConfigDict

from lmlite.benchmark.measure import Measure
from lmlite.benchmark.process import Bench
from lmlite.data.splits import sample
from lmlite.data.tasks import load_task
from lmlite.decode import generate
from lmlite.models.load import load

_AIMS = {1: 2.0, 16: 3.0}  # times the peer's speed, by batch size
_RUNS = 3


def case(bench: Bench) -> list[Measure]:
    """Seconds a batch size, and how many of the texts differ."""
    ours, peer = bench.ours("generate", cache="generate"), None
    if bench.has_peers:
        peer = bench.peer("hf_generate", model=bench.model, runs=_RUNS,
                          prompts=ours.values["prompts"],
                          **bench.config.generate)  # fmt: skip
    measures = []
    for size in bench.config.generate.batch_sizes:
        name = f"seconds_{size}"
        theirs = peer and peer.numbers[name]
        measures.append(Measure("generate", f"{size} prompts at a time", "s",
                                ours.numbers[name], theirs, at_least=_AIMS.get(size)))  # fmt: skip
    if peer:
        pairs = zip(ours.values["ids"], peer.values["ids"], strict=True)
        differ = sum(a != b for a, b in pairs)
        measures.append(Measure("generate", "texts that differ", "", differ, at_most=0))
    return measures


def measure(job: dict) -> dict:
    """Seconds of a run by batch size; the prompts as token ids and, of the largest, the new ids."""
    config = ConfigDict(job["config"])
    lm = load(config.model)
    lm = dataclasses.replace(lm, config=dataclasses.replace(lm.config, eos_ids=()))
    most = max(config.generate.batch_sizes)
    test = sample(load_task(config.task).test, most, config.seed, balanced=False)
    prompts = [lm.text.encode(e.prompt) for e in test]
    numbers, found = {}, []
    for size in config.generate.batch_sizes:
        limits = dict(max_new_tokens=config.generate.new_tokens, batch_size=size)
        seconds = []
        for _ in range(1 + _RUNS):
            start = time.perf_counter()
            found = generate(lm, prompts[:size], **limits)
            seconds.append(time.perf_counter() - start)
        numbers[f"seconds_{size}"] = min(seconds[1:])
    ids = [one.ids for one in found]
    return {"numbers": numbers, "values": {"prompts": prompts, "ids": ids}}
