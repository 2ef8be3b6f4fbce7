"""Answers written after encoded prompts; demonstrations that prompts share are prefilled once.

n prompts, S samples.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.answers import Answers
from lmlite.data.task import Generation
from lmlite.decode import generate
from lmlite.decode.prompts import batches, check_length, pad
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded
from lmlite.models.attention import Prefix
from lmlite.models.lm import LM
from lmlite.models.virtual import Virtual
from lmlite.runtime import Meter

_PREFIX = "shared_prompt"  # in the tree of parameters
_ROWS = 16  # texts that are written together at most


def write(
    lm: LM,
    encoded: Sequence[Encoded],
    shared: Sequence[bool],
    prefix: tuple[Prefix, ...] | None,
    generation: Generation,
    tree_tokens: int,
    kept: Answers,
    meter: Meter,
    seed: int,
) -> list[list[str]]:
    """S texts a prompt. shared: which prompts begin with the tokens of `prefix`. tree_tokens:
    bounds the memory, as in scoring; a batch's cache has room for 16 times as many. kept: where the
    texts of each batch are left, and found again. seed: of the draws.
    """
    S = generation.samples
    if S > 1 and not generation.temperature:
        raise UserError(
            f"generation.samples={S} texts would be the same at temperature=0.0; "
            "set generation.temperature, or one sample"
        )
    found: list[list[str]] = [[]] * len(encoded)
    for with_prefix in (True, False):
        chosen = [i for i, s in enumerate(shared) if s == with_prefix]
        if not chosen:
            continue
        skip = int(prefix[0].valid.sum()) if with_prefix and prefix else 0
        prompts = [encoded[i].context[skip:] for i in chosen]
        model = _behind(lm, prefix, skip) if skip else lm
        rows = _rows(prompts, generation.max_new_tokens, tree_tokens)
        for first in range(0, S, rows):
            samples = range(first, min(first + rows, S))
            texts = _texts(model, prompts, skip, samples, rows, seed, generation, kept, meter)
            for i, own in zip(chosen, texts, strict=True):
                found[i] = found[i] + own
    return found


def _rows(prompts: Sequence[Sequence[int]], new: int, tree_tokens: int) -> int:
    """How many texts are written together: as many for all prompts, so that programs are shared."""
    width = pad([max(prompts, key=len)])[0].shape[1]
    return max(1, min(_ROWS, _ROWS * tree_tokens // (width + new)))


def _texts(
    lm: LM,
    prompts: Sequence[Sequence[int]],
    skip: int,
    samples: range,
    rows: int,
    seed: int,
    generation: Generation,
    kept: Answers,
    meter: Meter,
) -> list[list[str]]:
    """The texts after each prompt, which of its samples they are; skip: tokens of the prefix that
    stands before the prompts; rows: texts of a batch. A prompt is read once for all these samples,
    and what prompts of a batch begin with alike once for them.
    """
    _check_room(lm, prompts, skip, generation.max_new_tokens)
    n = len(samples)
    size = min(rows // n, len(prompts))
    options = dict(
        max_new_tokens=generation.max_new_tokens,
        stop=generation.stop,
        temperature=generation.temperature,
        samples=n,
        seed=seed,
        batch_size=size * n,
        fill=True,
    )
    found: list[list[str]] = [[]] * len(prompts)
    for chosen in batches(prompts, size):
        own = [prompts[i] for i in chosen]
        numbers = [i * generation.samples + s for i in chosen for s in samples]

        def made(own=own, numbers=numbers) -> np.ndarray:
            written = generate(lm, own, numbers=numbers, meter=meter, **options)
            return _array([one.text for one in written])

        texts = _value(kept.of([_array([repr(options), skip, numbers, own])], made, meter))
        for at, i in enumerate(chosen):
            found[i] = texts[at * n : (at + 1) * n]
    return found


def _check_room(lm: LM, prompts: Sequence[Sequence[int]], skip: int, new: int) -> None:
    longest = max(map(len, prompts))
    if skip and longest + new > lm.room:
        raise UserError(
            f"a prompt has {skip + longest} tokens, {skip} of them before the query; with "
            f"generation.max_new_tokens={new} it exceeds the model's context of {skip + lm.room}; "
            "use fewer or shorter demonstrations"
        )
    check_length(lm, prompts, new)


def _array(value) -> np.ndarray:
    """What JSON can say, as bytes."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _value(array: np.ndarray):
    return json.loads(array.tobytes())


def extracted(text: str, pattern: str) -> str | None:
    """The first group of the pattern's last match, without white space around it; None without a
    match, and the text where there is no pattern.

    Raises UserError for a regex that is none, or has no group.
    """
    if not pattern:
        return text
    try:
        found = [match[1] or "" for match in re.finditer(pattern, text, re.DOTALL)]
    except (re.error, IndexError) as error:
        raise UserError(
            f"generation.extract={pattern!r} is no regex with a group: {error}"
        ) from error
    return found[-1].strip() if found else None


def expected(text: str, generation: Generation) -> str:
    """A right answer without the chain of thought that leads to it."""
    found = extracted(text, generation.extract) if generation.extract_right else None
    return text if found is None else found


def compared(text: str, generation: Generation) -> str:
    """An answer as it is compared. Raises UserError for a regex that is none."""
    for pattern in generation.ignore:
        try:
            text = re.sub(pattern, "", text)
        except re.error as error:
            raise UserError(f"generation.ignore: {pattern!r} is no regex: {error}") from error
    text = text.lower() if generation.ignore_case else text
    return text.strip() if generation.strip == "both" else text


def voted(texts: Sequence[str], generation: Generation) -> str:
    """The answer that most texts give, by the form that is compared, as the first of them has it:
    self-consistency (Wang et al. 2022, arXiv:2203.11171).
    """
    found = [extracted(text, generation.extract) for text in texts]
    answers = [answer for answer in found if answer is not None] or [generation.unfound]
    if generation.strip != "none":
        answers = [answer.strip() for answer in answers]
    forms = [compared(answer, generation) for answer in answers]
    counted = Counter(form for form in forms if form).most_common(1)
    return answers[forms.index(counted[0][0])] if counted else answers[0]


def _behind(lm: LM, prefix: tuple[Prefix, ...], length: int) -> LM:
    """The model with a prompt's keys and values before every input."""
    if lm.virtual is not None:
        raise UserError("a model with learned virtual tokens takes no demonstrations; use 0 shots")
    params = {**lm.params, _PREFIX: prefix}
    config = dataclasses.replace(lm.config, max_positions=lm.config.max_positions - length)
    virtual = Virtual(len(prefix[0].valid), _stored, used=_length)
    return dataclasses.replace(lm, params=params, config=config, virtual=virtual)


def _stored(network, params) -> tuple[Prefix, ...]:
    return params[_PREFIX]


def _length(params) -> jax.Array:
    return params[_PREFIX][0].valid.sum(dtype=jnp.int32)
