"""Measures lmlite beside other tools: same weights, same data, same machine, one run.

Cases: `icl`, choice scoring against lm-evaluation-harness; `lora`, training against PEFT;
`compile`, what the first step waits for; `many`, LoRA runs in one compiled step against the same in
turn; `generate`, against transformers. Every measurement is a fresh process. benchmark.json and
report.md in the workdir hold the numbers, the ratios, and where and when they were taken. The other
tools live in an environment of their own:

    python -m venv peers && peers/bin/python -m pip install torch transformers peft lm-eval
    python -m experiments.benchmark --workdir=DIR --config.peers_python=peers/bin/python
"""

from pathlib import Path

from lmlite import entry


def main(config, workdir):
    """Runs the cases of config.cases."""
    from lmlite.benchmark import benchmark  # here, so that --help does not wait for jax

    benchmark(config, workdir, peers=Path(__file__).with_name("peers"))


if __name__ == "__main__":
    entry.run(main, "benchmark")
