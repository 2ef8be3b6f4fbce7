"""Tunes one model on one task by one method, evaluates it and writes the tuned model.

Checkpoints every epoch, keeps the best by development loss, and resumes where it was stopped.
Writes results.jsonl, predictions.jsonl, report.md and, with --config.save=true, the tuned model of
each run as a Hugging Face directory under model/ in the workdir.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the tuning arm of the config for each seed."""
    from lmlite.compare import compare  # here, so that --help does not wait for jax

    compare(config, workdir, models=workdir / "model" if config.save else None)


if __name__ == "__main__":
    entry.run(main, "finetune")
