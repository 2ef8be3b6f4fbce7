"""Compares in-context learning with light tuning on one model and one task.

Fits every arm of the config on the same labelled examples, asks all of them the same test items,
and writes a table of quality and cost (results.jsonl, predictions.jsonl, report.md with a picture)
into the workdir. Run again with the same workdir, it goes on where it stopped.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the comparison."""
    from lmlite.compare import compare  # here, so that --help does not wait for jax

    compare(config, workdir)


if __name__ == "__main__":
    entry.run(main, "compare")
