"""Label words found from labelled examples: the word of the vocabulary that tells each class apart.

n examples, C classes, V vocabulary, U read positions.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.data.item import Item
from lmlite.data.pack import Batch, pack
from lmlite.data.rows import layout
from lmlite.errors import UserError
from lmlite.icl.score import batch_states
from lmlite.models.lm import LM
from lmlite.models.network import Network
from lmlite.models.tokenizer import Tokenizer
from lmlite.runtime import Meter, Program

CANDIDATES = 100  # words of a class among which the ratio decides
_LOOK = 256  # tokens that are looked at together
Tokens = Callable[[list[str]], list[list[int]]]


def find_words(
    lm: LM,
    items: Sequence[Item],
    targets: Sequence[int],
    choices: Sequence[str],
    tokens: Tokens,
    meter: Meter,
) -> tuple[str, ...]:
    """One word a class, in the order of `choices`, which name the classes; no two alike.

    items, targets: labelled examples, each with one read: where its answer begins. tokens: of words
    that stand as answers; one that is not a single token there is no candidate. The candidates of a
    class are the words that the model finds likeliest after its examples (Gao et al. 2021,
    arXiv:2012.15723, section 5.1). The one with the best likelihood ratio against the other classes
    is taken (Schick et al. 2020, arXiv:2010.13641, the classes balanced).
    Raises UserError for a class without an example or without a word.
    """
    counts = np.bincount(targets, minlength=len(choices))
    if absent := [name for name, n in zip(choices, counts, strict=True) if not n]:
        raise UserError(
            f"label_words='found' needs a labelled example of every class, and {absent[0]!r} has "
            "none; raise examples, or set label_words='given'"
        )
    logp, odds = _evidence(lm, items, targets, len(choices), meter)
    ratios = likelihood_ratios(odds, counts)
    known: dict[int, str] = {}
    pairs = [
        (-ratios[c, i], c, i)
        for c in range(len(choices))
        for i in _candidates(np.argsort(-logp[c], kind="stable"), lm.text, tokens, known)
    ]
    found: dict[int, str] = {}
    for _, c, i in sorted(pairs):
        if c not in found and known[i].casefold() not in map(str.casefold, found.values()):
            found[c] = known[i]
    if missing := [name for c, name in enumerate(choices) if c not in found]:
        raise UserError(
            f"label_words='found': the vocabulary has no word left for {missing[0]!r}; set "
            "label_words='given'"
        )
    return tuple(found[c] for c in range(len(choices)))


def likelihood_ratios(odds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float[C, V]: the mean log-odds of a token in a class less that in all others.

    odds: the sums float[C, V] over each class's examples, of which there are counts int[C].
    """
    counts = counts[:, None]
    return odds / counts - (odds.sum(0) - odds) / (counts.sum() - counts)


def _evidence(
    lm: LM, items: Sequence[Item], targets: Sequence[int], classes: int, meter: Meter
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over each class's examples float64[C, V]: log-probabilities of tokens, and log-odds."""
    sums = np.zeros((2, classes, lm.config.vocab_size))
    for batch in pack(items, *layout(items, lm.config.max_positions)):
        values = np.asarray(_next(meter, lm.network, lm.params, batch))
        for u in np.flatnonzero(batch.weights.any(1)):
            sums[:, targets[batch.owner[u]]] += values[:, u]
    return sums[0], sums[1]


def _next_tokens(network: Network, params, batch: Batch) -> jax.Array:
    """float32[2, U, V]: log p and log p / (1 - p) of every token at each read."""
    states = batch_states(network, 0, params, batch)
    logp = jax.nn.log_softmax(network.readout(params, states), axis=-1)
    return jnp.stack([logp, logp - jnp.log1p(-jnp.minimum(jnp.exp(logp), 1 - 1e-6))])


_next = Program(_next_tokens, static=1)


def _candidates(
    order: np.ndarray, text: Tokenizer, tokens: Tokens, known: dict[int, str]
) -> Iterator[int]:
    """The first CANDIDATES ids of `order` that are words, which are added to `known`."""
    found = 0
    for at in range(0, len(order), _LOOK):
        ids = [int(i) for i in order[at : at + _LOOK] if i < text.vocab_size]
        words = [(i, word) for i in ids if _is_word(word := text.decode([i]).strip())]
        whole = tokens([word for _, word in words]) if words else []
        for (i, word), own in zip(words, whole, strict=True):
            if own == [i]:
                known[i] = word
                found += 1
                yield i
            if found == CANDIDATES:
                return


def _is_word(text: str) -> bool:
    return text.isalpha() and len(text.encode()) > 1  # no lone Latin letter
