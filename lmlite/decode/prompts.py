"""Prompts as padded id arrays, in shapes that similar prompts share."""

from collections.abc import Sequence

import numpy as np

from lmlite.errors import UserError
from lmlite.models import trees
from lmlite.models.lm import LM


def encode(lm: LM, prompts: str | Sequence[str | Sequence[int]], chat: bool) -> list[list[int]]:
    """Token ids of each prompt: a text, or ids already. chat: wraps a text as a user's message.

    Raises UserError for no prompts, an empty one, ids as a chat message or outside the vocabulary.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise UserError("prompts is empty; give at least one")
    encoded = [_encode(lm, prompt, chat) for prompt in prompts]
    for i, ids in enumerate(encoded):
        if not ids:
            raise UserError(f"prompts[{i}] is empty; give it at least one token")
        if min(ids) < 0 or max(ids) >= lm.config.vocab_size:
            raise UserError(
                f"prompts[{i}] has ids {min(ids)}..{max(ids)}; "
                f"they must lie in 0..{lm.config.vocab_size - 1} (the vocabulary)"
            )
    return encoded


def _encode(lm: LM, prompt: str | Sequence[int], chat: bool) -> list[int]:
    if not isinstance(prompt, str):
        if chat:
            raise UserError("chat=True needs prompts as text; these are token ids")
        return [int(i) for i in prompt]
    if chat:
        message = {"role": "user", "content": prompt}
        return lm.text.encode(lm.text.chat([message]), special=False)
    return lm.text.encode(prompt)


def check_length(lm: LM, prompts: list[list[int]], max_new_tokens: int) -> None:
    """Raises UserError where a prompt and what shall follow it do not fit the context.

    An encoder-decoder has a context for each; its new tokens follow the one that starts them.
    """
    context = lm.room
    for i, ids in enumerate(prompts):
        n = len(ids)
        longest = max(n, 1 + max_new_tokens) if lm.config.cross else n + max_new_tokens
        if longest > context:
            raise UserError(
                f"prompts[{i}] has {n} tokens; with max_new_tokens={max_new_tokens} it "
                f"exceeds the model's context of {context}; shorten one of them"
            )


def batches(prompts: list[list[int]], size: int) -> list[list[int]]:
    """Indices of the prompts in batches of at most `size`: the longest first, but prompts that
    begin alike together, because a batch reads once what they share.
    """
    order = []
    ahead = [(trees.walk(prompts), 0)] if prompts else []
    while ahead:
        walk, depth = ahead.pop()
        if len(walk) == 1:
            order.append(walk[0][0])
            continue
        for kin in reversed(_kin(prompts, walk, depth)):
            ahead.append((kin, min((same for _, same in kin[1:]), default=depth)))
    return [order[i : i + size] for i in range(0, len(order), size)]


def _kin(prompts: list[list[int]], walk: list[tuple[int, int]], depth: int):
    """Parts of a walk (see `trees.walk`), the one with the longest prompt first.

    Neighbours are in one part that have half of the longer one in common, not counting the first
    `depth` tokens, which all have: so the lengths of a part are similar too.
    """
    kin: list[list[tuple[int, int]]] = []
    before = 0  # the length of the neighbour
    for at, (i, same) in enumerate(walk):
        longer = max(before, len(prompts[i])) - depth
        if at and same - depth >= max(trees.LEAST, longer / 2):
            kin[-1].append((i, same))
        else:
            kin.append([(i, same)])
        before = len(prompts[i])
    return sorted(kin, key=lambda own: min((-len(prompts[i]), i) for i, _ in own))


def filled(rows: list[int], size: int) -> list[int]:
    """A batch with its last prompt repeated: a last batch that is smaller is another program."""
    return rows + rows[-1:] * (size - len(rows))


def pad(prompts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """ids int32[B, T], padded on the right, and lengths int32[B]; T is a power of two from 8."""
    lengths = np.array([len(ids) for ids in prompts], np.int32)
    width = max(8, 1 << int(lengths.max() - 1).bit_length())
    ids = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return ids, lengths
