"""Writes a tuned model or an adapter as a PEFT directory, as LoRA, or merged into its base.

Reads the workdir of experiments.finetune or a PEFT adapter directory. Writes adapter/ or model/
into the workdir, and export.json: the method, and for LoRA the relative error of every layer.
"""

from lmlite import entry


def main(config, workdir):
    """Exports the config's source."""
    from lmlite.export import export  # here, so that --help does not wait for jax

    export(config, workdir)


if __name__ == "__main__":
    entry.run(main, "export")
