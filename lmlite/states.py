"""The frozen part of the trunk, computed once: the state entering the first layer that trains.

D width, R rows, T tokens a row.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from lmlite.data.pack import BATCH_TOKENS, Batch, Item, pack, row_length
from lmlite.models.lm import LM, Network
from lmlite.models.tokens import Tokens
from lmlite.runtime import Meter, Program
from lmlite.tree import FROZEN

_BELOW = ("embed", "positions/", "types/", "relative/", "encoder/")  # what every layer rests on
LIMIT_BYTES = 2 * 2**30  # beyond this the states are recomputed rather than held in memory


def first_trained_layer(labels: Mapping[str, str], layers: int) -> int:
    """The lowest layer that a trained parameter can change; `layers` where none is in the stack."""
    trained = [path for path, label in labels.items() if label != FROZEN]
    if any(path.startswith(_BELOW) for path in trained):
        return 0
    found = [re.match(r"layers_(\d+)/", path) for path in trained]
    return min((int(match[1]) for match in found if match), default=layers)


def _bottom_to(network: Network, stop: int, params, batch: Batch):
    tokens = Tokens(batch.position, batch.segment, batch.branch)
    x = network.bottom(params, batch.ids, tokens)
    return network.trunk(params, x, tokens, stop=stop)


_run = Program(_bottom_to, static=2)


def frozen_states(lm: LM, items: Sequence[Item], stop: int, meter: Meter) -> np.ndarray | None:
    """float32[total tokens, D]: what enters layer `stop`, indexed by `Batch.origin`.

    None where nothing below `stop` is worth keeping (stop 0) or it would not fit in memory.
    """
    total = sum(len(item.ids) for item in items)
    if stop == 0 or total * lm.config.width * 4 > LIMIT_BYTES:
        return None
    store = np.zeros((total, lm.config.width), np.float32)
    length = row_length(items, lm.config.max_positions)
    for batch in pack(items, length, max(1, BATCH_TOKENS // length)):
        x = np.asarray(_run(meter, lm.network, stop, lm.params, batch))
        held = batch.segment > 0
        store[batch.origin[held]] = x[held]
    return store
