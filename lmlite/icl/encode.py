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
    tokenizer: Tokenizer,
    contexts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    special: bool = True,
    whole: bool = False,
) -> list[Encoded]:
    """Encodes each context with its continuations (which bring their own leading space).

    A continuation's tokens are those of the joint text past the context's own, and a context's
    trailing spaces move into the continuation: lm-evaluation-harness's rule, so scores compare. By
    the same rule an empty context is the token that starts (or else ends) a text. special: whether
    to add what the model expects around a text; prompts of a chat template bring it. whole: keeps
    the trailing spaces of contexts, as where an answer is written after them; a continuation whose
    first token would reach into its context is then encoded by itself.
    Raises UserError for an empty continuation.
    """
    bare = [context if whole else context.rstrip() for context in contexts]
    heads = tokenizer.encode_batch(bare, special)
    pairs = zip(contexts, continuations, strict=True)
    texts = [full + continuation for full, ends in pairs for continuation in ends]
    joint = tokenizer.encode_batch(texts, special)
    out, at = [], 0
    for context, head, texts in zip(bare, heads, continuations, strict=True):
        joined = joint[at : at + len(texts)]
        at += len(texts)
        if not context:
            head = first_token(tokenizer)
            joined = [ids if ids[:1] == head else head + ids for ids in joined]
        own = zip(joined, texts, strict=True)
        tails = [
            tokenizer.encode(text, special=False) if whole and ids[: len(head)] != head
            else ids[len(head) :]
            for ids, text in own
        ]  # fmt: skip
        if [] in tails:
            text = texts[tails.index([])]
            raise UserError(f"choice {text!r} adds no token to its prompt; name it differently")
        out.append(Encoded(head, tails))
    return out


def first_token(tokenizer: Tokenizer) -> list[int]:
    """What stands before a text without a context. UserError for a model that has no such token."""
    for token in (tokenizer.bos_id, tokenizer.eos_id):
        if token is not None:
            return [token]
    raise UserError("a prompt is empty, and the model has no token that starts a text; use another")


def spaces_moved(
    contexts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """The contexts without their trailing spaces, which stand before the continuations instead."""
    bare = [context.rstrip() for context in contexts]
    ends = [context[len(head) :] for context, head in zip(contexts, bare, strict=True)]
    return bare, [[e + c for c in own] for e, own in zip(ends, continuations, strict=True)]


def encode_pairs(
    tokenizer: Tokenizer, sources: Sequence[str], targets: Sequence[Sequence[str]]
) -> list[Encoded]:
    """Encodes each source, with the special tokens around it, and its targets, without any.

    For encoder-decoders (lm-evaluation-harness's rule), for encoders that fill a mask, and for the
    noisy channel.
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
