"""Runs the comparison on several tasks and writes one table of them.

Each task is a run of `compare` in a folder of its own. Run again with the same workdir, it goes on
where it stopped.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the survey."""
    from lmlite.survey import survey  # here, so that --help does not wait for jax

    survey(config, workdir)


if __name__ == "__main__":
    entry.run(main, "survey")
