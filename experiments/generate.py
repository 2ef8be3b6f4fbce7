"""Continues prompts with one model and shows the text as it is made.

Writes generations.jsonl into the workdir: prompt, text, the number of tokens made, and the seconds
it took (of the prompt's batch). Run again with the same workdir, it goes on with the prompts that
are left.
"""

from lmlite import entry


def main(config, workdir):
    """Generates for the prompts of the config."""
    from lmlite.decode.command import command  # here, so that --help does not wait for jax

    command(config, workdir)


if __name__ == "__main__":
    entry.run(main, "generate")
