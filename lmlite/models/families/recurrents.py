"""Recurrent models, in a directory of lmlite's own: no other library has one for them.

`layers.{i}.input` and `.state` hold what PyTorch names weight_ih_l{i}, bias_ih_l{i} and
weight_hh_l{i}, bias_hh_l{i}, in its order of gates.
"""

from lmlite.models.config import RecurrentConfig
from lmlite.models.families.family import Family

RECURRENTS = {
    "recurrent": Family(
        "Recurrent",
        config=RecurrentConfig,
        defaults={
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        fields={
            "vocab_size": "vocab_size",
            "width": "hidden_size",
            "embed_width": "embedding_size",
            "layers": "num_hidden_layers",
            "cell": "cell",
            "tied": "tie_word_embeddings",
            "bos_id": "bos_token_id",
            "pad_id": "pad_token_id",
        },
        modules={
            "embed": "embed",
            "layers_{i}/input": "layers.{i}.input",
            "layers_{i}/state": "layers.{i}.state",
            "head": "head",
        },
    ),
}
