"""Which split a group of rows goes to, and which labelled examples an arm sees.

Both are decided by hashes, never by the order of the data or a random generator's state.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmlite.errors import UserError

if TYPE_CHECKING:
    from lmlite.data.task import Example


def split_of(group: str, fractions: Sequence[tuple[str, float]], seed: int = 0) -> str:
    """The split of a group: each gets its fraction of all groups, in expectation.

    fractions: (split, fraction) pairs that sum to 1. A group keeps its split when others come or
    go, so a test row of a small look at the data is a test row of all of it.
    """
    where = position("split", seed, group)
    end = 0.0
    for split, fraction in fractions:
        end += fraction
        if where < end:
            return split
    return split  # rounding left the end just below 1


def sample(
    examples: "Sequence[Example]", n: int, seed: int, balanced: bool = True
) -> "tuple[Example, ...]":
    """n of the examples, drawn by (seed, id) and in the order drawn.

    balanced: each target as often as the others, as far as there are enough of it; otherwise as
    they come. Draws of one seed are nested: those for a small n are among those for a larger one.
    UserError: more are asked for than there are, or fewer than none.
    """
    if not 0 <= n <= len(examples):
        raise UserError(
            f"{n} labelled examples are asked for and the split has {len(examples)}; ask for "
            f"{'fewer' if n > 0 else '0 or more'}"
        )
    drawn = sorted(examples, key=lambda example: position("sample", seed, example.id))
    seen = Counter()
    rounds = []  # the first of every target, then the second of every target, ...
    for order, example in enumerate(drawn):
        rounds.append((seen[example.target] if balanced else 0, order))
        seen[example.target] += 1
    return tuple(drawn[order] for order in sorted(order for _, order in sorted(rounds)[:n]))


def held_out(
    examples: "Sequence[Example]", fraction: float
) -> "tuple[tuple[Example, ...], tuple[Example, ...]]":
    """(to train on, for development): both in the order given, every target in both alike.

    fraction: of the examples that is for development, rounded up; of each target the last. A target
    with a single example stays in the first, where others have more.
    Raises UserError where the fraction leaves no example to train on.
    """
    n = math.ceil(fraction * len(examples))
    if not 0 <= n < len(examples):
        raise UserError(
            f"dev_fraction={fraction} of {len(examples)} labelled examples leaves none to train "
            "on; lower it or raise examples"
        )
    sizes, seen = Counter(example.target for example in examples), Counter()
    places = []  # how far down its target's examples each one is
    for order, example in enumerate(examples):
        places.append(((seen[example.target] + 0.5) / sizes[example.target], order))
        seen[example.target] += 1
    dev = {order for _, order in sorted(places)[len(examples) - n :]}
    return tuple(e for i, e in enumerate(examples) if i not in dev), tuple(
        examples[i] for i in sorted(dev)
    )


def position(use: str, seed: int, name: str) -> float:
    """A hash of the three as a number in [0, 1).

    `use` keeps decisions independent: rows picked to be few must not all be of one split.
    """
    digest = hashlib.sha256(f"{use}:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
