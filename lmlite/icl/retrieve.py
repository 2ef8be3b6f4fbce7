"""Choosing demonstrations by their embeddings: near to a query, or apart from each other.

n examples, m queries, k demonstrations, D width.
"""

import functools
from collections.abc import Sequence

import numpy as np

from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.models.pooling import embed
from lmlite.runtime import Meter

_ROUNDS = 50  # of k-means at most


@functools.lru_cache(maxsize=2)
def encoder(source: str) -> LM:
    """The model that embeds texts, loaded once."""
    return load(source)


def embedded(source: str, texts: Sequence[str], meter: Meter | None = None) -> np.ndarray:
    """float32[n, D] of length 1, so that products are cosines; texts are cut to the context.

    meter: told what it takes.
    """
    model = encoder(source)
    room = model.room - 2
    cut = [model.text.decode(model.text.encode(t, special=False)[:room]) for t in texts]
    return embed(model, [text or "." for text in cut], "mean", normalize=True, meter=meter)


def nearest(queries: np.ndarray, pool: np.ndarray, k: int, diversity: float = 0.0) -> np.ndarray:
    """int[m, k]: for each query [m, D] its nearest of pool [n, D], the nearest first.

    diversity: weight of the similarity to what is chosen already, 0 for none: maximal marginal
    relevance (Carbonell & Goldstein 1998, with lambda = 1 - diversity).
    """
    relevance = queries @ pool.T
    if not diversity:
        return np.argsort(-relevance, axis=1, kind="stable")[:, :k]
    among = pool @ pool.T
    rows = []
    for row in relevance:
        chosen = [int(np.argmax(row))]
        while len(chosen) < k:
            merit = (1 - diversity) * row - diversity * among[chosen].max(axis=0)
            merit[chosen] = -np.inf
            chosen.append(int(np.argmax(merit)))
        rows.append(chosen)
    return np.array(rows)


def spread_out(pool: np.ndarray, k: int, seed: int) -> list[int]:
    """k of pool [n, D]: the one nearest to each centre of k-means.

    It starts at one drawn by `seed`, and at what is farthest from those before (Gonzalez 1985):
    random centres often end two to a cluster.
    """
    starts = [int(np.random.default_rng(seed).integers(len(pool)))]
    while len(starts) < k:
        starts.append(int(np.argmin((pool @ pool[starts].T).max(axis=1))))
    centres = pool[starts]
    for _ in range(_ROUNDS):
        own = np.argmax(pool @ centres.T, axis=1)
        means = [pool[own == c].mean(0) if np.any(own == c) else centres[c] for c in range(k)]
        moved = np.stack([mean / max(np.linalg.norm(mean), 1e-12) for mean in means])
        if np.allclose(moved, centres):
            break
        centres = moved
    chosen: list[int] = []
    for row in centres @ pool.T:
        chosen.append(next(int(i) for i in np.argsort(-row, kind="stable") if i not in chosen))
    return chosen
