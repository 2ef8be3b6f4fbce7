"""The benchmark told to people, in Markdown."""

from collections.abc import Sequence

from lmlite.benchmark.measure import Measure
from lmlite.benchmark.process import Bench

_FORMATS = {"s": "{:.2f} s", "MiB": "{:.0f} MiB", "nats": "{:.1e} nats", "": "{:.0f}"}
_NOTES = """\
Less is better in every line. Every number comes from a process of its own; ours and the peer's
took turns in one run. Float32 unless a line says otherwise.

- icl: {shots}-shot, {test_items} test items, the same prompts and choices. The peer is
  lm-evaluation-harness's Hugging Face backend, batch size {peer_batch_size}, on the same weights.
  `scoring` leaves out loading and, of ours, compilation, which both process lines include: the
  first starts without compiled programs, the warm one with those of the first.
- passages: all four-choice questions of passages that have {passages[least]} or more of them,
  without demonstrations; the peer and the seconds are as of icl.
- texts: the answers of {texts[test_items]} items, hundreds of tokens each. Nothing is shared, so
  either side computes every token once.
- lora: rank {rank} on `{targets}`, {examples} examples, {epochs} epochs, batches of {batch_size}.
  The peer is PEFT in a plain PyTorch loop from the same initial weights, with the same batches,
  learning rate and clipping. Seconds are of training, without loading; losses are means of epochs.
- many: {many[arms]} LoRA runs of {many[examples]} examples, {many[epochs]} epochs, batches of
  {many[batch_size]}, that differ in seed and learning rate. lmlite: in one compiled step; the peer
  column is lmlite too, the same runs in turn.
- states: the last {states[layers]} layers tuned on {states[examples]} examples, a part
  {states[dev_fraction]} of them for development, batches of {states[batch_size]}. What enters the
  lowest of those layers is computed once; the peer column is lmlite too, which computes it anew in
  every step. Both take turns in one process, epoch by epoch; means of the epochs after the first.
  Processor seconds are of all cores, and say more where other processes run beside.
- generate: {generate[new_tokens]} new tokens after each prompt, greedy, from ids to ids. The peer
  is `transformers`; both run once before, and the fastest of three runs counts.
- compile: tracing and compiling the training step, with an empty cache of programs, then with that
  of the process before.
"""
_NO_PEERS = """\
The peer column is empty: no peers were measured. They need an environment of their own:

    python -m venv peers && peers/bin/python -m pip install torch transformers peft lm-eval
    python -m experiments.benchmark --workdir=DIR --config.peers_python=peers/bin/python
"""


def markdown(record: dict, bench: Bench, measures: Sequence[Measure]) -> str:
    """The table, what its lines mean, and where and when they were measured.

    record: the fields of `record.run_record`, and `load`: the machine's load average at the start.
    """
    cases = ("passages", "texts", "many", "states", "generate")
    notes = _NOTES.format(
        **bench.config.icl, **bench.config.lora, **{name: bench.config[name] for name in cases}
    )
    parts = ["# Benchmark\n", _table(measures), notes, _where(record, bench.versions)]
    return "\n".join(parts if bench.has_peers else [*parts[:2], _NO_PEERS, *parts[2:]])


def _where(record: dict, peers: dict[str, str]) -> str:
    versions = {**record["versions"], **peers}
    lines = {
        "date": record["date"],
        "machine": f"{record['processor']}, {record['platform']}",
        "load before": f"{record['load']:.2f}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": record["commit"],
        "command": f"`{record['command']}`",
    }
    return "".join(f"- {name}: {value}\n" for name, value in lines.items())


def _table(measures: Sequence[Measure]) -> str:
    """A Markdown table, a line a measure, padded so that it reads as text too."""
    head = ("case", "quantity", "lmlite", "peer", "peer / lmlite", "aim", "reached")
    rows = [head, *(_cells(measure) for measure in measures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "".join(f"| {' | '.join(map(str.ljust, row, widths))} |\n" for row in rows)


def _cells(m: Measure) -> tuple[str, ...]:
    aim = ""
    if m.at_least is not None:
        aim = f">= {m.at_least:g}x"
    elif m.at_most is not None:
        aim = f"<= {m.at_most:g} {m.unit}".rstrip()
    ratio = "" if m.ratio is None else f"{m.ratio:.2f}x"
    reached = {None: "", True: "yes", False: "no"}[m.reached]
    return m.case, m.what, _value(m.ours, m.unit), _value(m.peer, m.unit), ratio, aim, reached


def _value(value: float | None, unit: str) -> str:
    return "" if value is None else _FORMATS[unit].format(value)
