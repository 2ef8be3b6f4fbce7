"""Prompts one model with demonstrations of one task and scores its answer choices.

Draws demonstrations, prefills them once, scores every test item raw, length-normalised and
calibrated, and writes results.jsonl, predictions.jsonl and report.md into the workdir.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the prompting arms of the config."""
    from lmlite.compare import compare  # here, so that --help does not wait for jax

    compare(config, workdir)


if __name__ == "__main__":
    entry.run(main, "in_context")
