"""Trains a language model on text from random weights, its tokenizer too.

The objective is causal (decoders, recurrent models), masked tokens (encoders) or span corruption
(encoder-decoders). Writes results.jsonl, report.md with the curves, and the model as directories
that `lmlite.load` opens, model/best by held-out loss and model/last. Run again with the same
workdir, it goes on where it stopped.
"""

from lmlite import entry


def main(config, workdir):
    """Trains the model of the config."""
    from lmlite.pretrain.command import pretrain  # here, so that --help does not wait for jax

    pretrain(config, workdir)


if __name__ == "__main__":
    entry.run(main, "pretrain")
