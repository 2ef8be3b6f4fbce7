"""Tunes one model on one task by one method, evaluates it and writes the tuned model.

Checkpoints every epoch, keeps the best by development loss, and resumes where it was stopped.
Writes results.jsonl, predictions.jsonl, report.md and, with --config.save=true, the tuned model of
each run as a Hugging Face directory under model/ in the workdir. With --config.folds=K, K-fold
cross-validation on the labelled examples instead: folds.json.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the tuning arm of the config for each seed."""
    from lmlite.compare import compare  # here, so that --help does not wait for jax
    from lmlite.folds import cross_validate

    if config.folds:
        cross_validate(config, workdir)
        return

    compare(config, workdir, models=workdir / "model" if config.save else None)


if __name__ == "__main__":
    entry.run(main, "finetune")
