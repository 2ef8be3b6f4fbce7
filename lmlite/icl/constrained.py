"""Answers decoded token by token among the choices alone: only tokens that lead to one are allowed.

A trie of the choices' tokens says what is allowed after what. Its log-probabilities come from one
packed pass, in which each of its tokens stands once; a loop of decoding steps would compute less
only where it stops early, and wait for every step. C choices.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lmlite.errors import UserError

Path = tuple[int, ...]


def paths(choices: Sequence[Sequence[int]], ends: Sequence[int]) -> list[Path]:
    """The ways from the root to every node of the choices' trie.

    A choice that another begins with may end where the other goes on: `ends` are the tokens that
    then stand for the end, nodes of their own. Raises UserError where it needs one and has none.
    """
    nodes = dict.fromkeys(tuple(c[:n]) for c in choices for n in range(1, len(c) + 1))
    goes_on = {path[:-1] for path in nodes}
    for choice in {tuple(c) for c in choices} & goes_on:
        closing = [(*choice, end) for end in ends if (*choice, end) not in nodes]
        if not closing:
            raise UserError(
                "a choice is the beginning of another, and no token ends it; rename a choice, or "
                "set task.fewshot_delimiter"
            )
        nodes |= dict.fromkeys(closing)
    return list(nodes)


def decoded(choices: Sequence[Sequence[int]], sums: Mapping[Path, float]) -> np.ndarray:
    """Scores float64[C]: log-probabilities under the constraint; the decoded choice is the highest.

    sums: the summed log-probability of every path. At each node the probabilities of what is
    allowed are divided by their sum, so those of all choices sum to 1. Greedy decoding takes the
    likeliest token at each; where that misses the most probable choice, the choices it dropped are
    moved below the one it ends with, all by the same amount.
    """
    nexts: dict[Path, list[Path]] = {}
    for path in sums:
        nexts.setdefault(path[:-1], []).append(path)
    logq = _normalised(nexts, sums)
    owner = {}
    for i, choice in enumerate(choices):
        owner.setdefault(tuple(choice), i)
    scores = np.array([_ending(tuple(c), nexts, owner, logq) for c in choices])
    at: Path = ()
    while at in nexts:
        at = max(nexts[at], key=logq.__getitem__)
    chosen = owner[at] if at in owner else owner[at[:-1]]
    best = np.delete(scores, chosen).max(initial=-np.inf)
    if best >= scores[chosen]:
        behind = best - scores[chosen] + 1e-6
        scores[np.arange(len(scores)) != chosen] -= behind
    return scores


def _normalised(nexts: Mapping[Path, list[Path]], sums: Mapping[Path, float]) -> dict[Path, float]:
    """The log-probability of each path where only the trie's tokens are allowed."""
    logq: dict[Path, float] = {(): 0.0}
    for node in sorted(nexts, key=len):
        steps = np.array([sums[path] - sums.get(node, 0.0) for path in nexts[node]])
        steps = logq[node] + steps - np.logaddexp.reduce(steps)
        logq |= zip(nexts[node], steps.tolist(), strict=True)
    return logq


def _ending(choice: Path, nexts, owner: Iterable[Path], logq: Mapping[Path, float]) -> float:
    """The log-probability that the text is `choice` and ends there."""
    if choice not in nexts:
        return logq[choice]
    inner = {path[: len(choice) + 1] for path in owner if len(path) > len(choice)}
    return float(np.logaddexp.reduce([logq[p] for p in nexts[choice] if p not in inner]))
