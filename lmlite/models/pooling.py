"""One vector a text: token states, pooled.

B batch, T tokens, D width, n texts.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.errors import UserError
from lmlite.models.lm import LM, hidden
from lmlite.models.network import Network
from lmlite.runtime import Meter, Program

_BATCH_TOKENS = 4096
_MULTIPLE = 32  # T is padded to a multiple, so that batches share compiled programs


def pool(states: jax.Array, mask: jax.Array, pooling: str) -> jax.Array:
    """float32[B, D] of states [B, T, D], mask bool[B, T] with padding on any side.

    'mean' averages over the tokens, 'cls' takes the first one's state, 'last' the last one's.
    Raises UserError for another pooling.
    """
    weights = mask.astype(jnp.float32)
    place = jnp.cumsum(weights, axis=1) * weights  # 1, 2, ... at the tokens
    if pooling == "cls":
        weights = (place == 1.0).astype(jnp.float32)
    elif pooling == "last":
        weights = (place == place.max(1, keepdims=True)).astype(jnp.float32) * weights
    elif pooling != "mean":
        raise UserError(f"pooling {pooling!r} is unknown; known: mean, cls, last")
    total = jnp.einsum("btd,bt->bd", states, weights, precision="highest")
    return total / jnp.maximum(weights.sum(1, keepdims=True), 1.0)


def _pooled(network: Network, pooling: str, params, ids: jax.Array, mask: jax.Array) -> jax.Array:
    return pool(hidden(network, params, ids, mask), mask, pooling)


_embed = Program(_pooled, static=2)


def embed(
    lm: LM, texts: Sequence[str], pooling: str, normalize: bool, meter: Meter | None = None
) -> np.ndarray:
    """See `LM.embed`. Texts of similar length share a batch; the order is that of `texts`.

    meter: told what it takes.
    """
    if isinstance(texts, str):
        raise UserError("texts is one text; give a list of them")
    encoded = lm.text.encode_batch(list(texts))
    if [] in encoded:
        raise UserError(f"texts[{encoded.index([])}] is empty; give it at least one token")
    longest = max(map(len, encoded), default=0)
    if longest > lm.room:
        raise UserError(
            f"a text has {longest} tokens, the model's context is {lm.room}; shorten the text"
        )
    found, meter = np.zeros((len(encoded), lm.config.width), np.float32), meter or Meter()
    for chosen in _batches([len(ids) for ids in encoded]):
        longest = max(len(encoded[i]) for i in chosen)
        width = min(-(-longest // _MULTIPLE) * _MULTIPLE, max(longest, lm.room))
        ids, mask = np.zeros((2, len(chosen), width), np.int32)
        for row, i in enumerate(chosen):
            ids[row, : len(encoded[i])] = encoded[i]
            mask[row, : len(encoded[i])] = 1
        found[chosen] = _embed(meter, lm.network, pooling, lm.params, ids, mask > 0)
    if normalize:
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices, longest first, in batches of at most `_BATCH_TOKENS` tokens with their padding."""
    batches: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not room:
            batches.append([])
            room = max(1, _BATCH_TOKENS // max(_MULTIPLE, lengths[i]))
        batches[-1].append(i)
        room -= 1
    return batches
