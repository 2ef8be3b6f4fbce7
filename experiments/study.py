"""Repeats the comparison with more and more labelled examples and writes one table of it.

Each point is a run of `compare` in a folder of its own. Run again with the same workdir, it goes on
where it stopped.
"""

from lmlite import entry


def main(config, workdir):
    """Runs the study."""
    from lmlite.study import study  # here, so that --help does not wait for jax

    study(config, workdir)


if __name__ == "__main__":
    entry.run(main, "study")
