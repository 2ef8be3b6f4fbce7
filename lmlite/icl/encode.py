"""Text to the tokens that are scored: context, and the continuation tokens of each choice."""

from collections.abc import Sequence
from typing import NamedTuple

from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer


class Encoded(NamedTuple):
    """Token ids of a context and, a choice, of its continuation."""

    context: list[int]
    choices: list[list[int]]


def encode(
    tokenizer: Tokenizer, contexts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> list[Encoded]:
    """Encodes each context with its continuations (which bring their own leading space).

    A continuation's tokens are those of the joint text past the context's own, and a context's
    trailing spaces move into the continuation: lm-evaluation-harness's rule, so scores compare.
    Raises UserError for an empty context or continuation.
    """
    bare = [context.rstrip() for context in contexts]
    if empty := [i for i, context in enumerate(bare) if not context]:
        raise UserError(f"prompt {empty[0]} is empty; give the task a template with fixed text")
    heads = tokenizer.encode_batch(bare)
    joint = tokenizer.encode_batch(
        [full + text for full, texts in zip(contexts, continuations, strict=True) for text in texts]
    )
    out, at = [], 0
    for head, texts in zip(heads, continuations, strict=True):
        tails = [ids[len(head) :] for ids in joint[at : at + len(texts)]]
        at += len(texts)
        if [] in tails:
            text = texts[tails.index([])]
            raise UserError(f"choice {text!r} adds no token to its prompt; name it differently")
        out.append(Encoded(head, tails))
    return out


def encode_pairs(
    tokenizer: Tokenizer, sources: Sequence[str], targets: Sequence[Sequence[str]]
) -> list[Encoded]:
    """Encodes each source, with the special tokens around it, and its targets, without any.

    For encoder-decoders, and again lm-evaluation-harness's rule.
    Raises UserError for an empty source or target.
    """
    heads = tokenizer.encode_batch(list(sources))
    if empty := [i for i, text in enumerate(sources) if not text.strip()]:
        raise UserError(f"prompt {empty[0]} is empty; give the task a template with fixed text")
    flat = [text for texts in targets for text in texts]
    found = iter(zip(flat, tokenizer.encode_batch(flat, special=False), strict=True))
    out = []
    for head, texts in zip(heads, targets, strict=True):
        tails = []
        for _ in texts:
            text, ids = next(found)
            if not ids:
                raise UserError(f"choice {text!r} has no token; name it differently")
            tails.append(ids)
        out.append(Encoded(head, tails))
    return out


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix that leaves every sequence at least one token."""
    first, last = min(sequences), max(sequences)
    limit = min(len(s) for s in sequences) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), limit)  # noqa: B905
    return max(min(same, limit), 0)
