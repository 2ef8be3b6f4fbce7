"""`generate`: the loop on the host, from prompts to texts."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmlite import runtime
from lmlite.decode import loop
from lmlite.decode.beams import Beams
from lmlite.decode.prompts import batches, check_length, encode, filled
from lmlite.decode.sampling import Sampler, rule
from lmlite.decode.shared import reading
from lmlite.decode.transcript import Transcript
from lmlite.errors import UserError
from lmlite.models.lm import LM

_CHUNK = 8  # tokens between two looks at the texts: few enough to stream, many enough to be free
_ROOM = 64  # a cache's room for new tokens is a multiple of this; limits share compiled programs


@dataclasses.dataclass(frozen=True)
class Generation:
    """What follows one prompt.

    prompt_ids: the prompt as the model saw it. ids: without the token that ends a text, with the
    one that completes a stop text. text: cut before a stop text; '' without a tokenizer.
    """

    prompt_ids: list[int]
    ids: list[int]
    text: str


def generate(
    lm: LM,
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    stop: str | Sequence[str] = (),
    samples: int = 1,
    seed: int = 0,
    chat: bool = False,
    stream: Callable[[int, str], None] | None = None,
    batch_size: int = 16,
    fill: bool = False,
    numbers: Sequence[int] | None = None,
    meter: runtime.Meter | None = None,
) -> list[Generation]:
    """The continuation of every prompt (texts, or token ids), in their order; `samples` of each,
    one after the other, for which it is read once.

    Greedy unless `temperature` > 0; then tokens are drawn from the `top_k` most likely (0: all),
    the smallest set with probability `top_p`, those at least `min_p` times as likely as the first.
    `repetition_penalty` > 1 disfavours tokens of the prompt and the text. With `beams` > 1, beam
    search: scores are log-probabilities over length**length_penalty; `early_stopping` ends it when
    as many texts have ended. A text ends at the model's end-of-text ids, before the first of the
    `stop` texts, or after `max_new_tokens`. `chat` wraps each prompt as a user's message. `stream`
    is called with (index of the prompt, piece of text) as soon as text is final.

    Draws depend on `seed`, the text's number and the step, not on the batch. `numbers`: of the
    texts, their places by default; a call for some of them then draws as one for all. `meter`
    is told the seconds of compiling. `batch_size`: texts that are written together; with `fill`,
    fewer are filled up to it, so that they share the compiled programs of a full batch. What
    prompts of a batch begin with alike is read once.
    Raises UserError for settings out of range or at odds, an empty prompt, or one too long.
    """
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    _check(lm, max_new_tokens, temperature, beams, samples, stop, batch_size)
    settings = rule(temperature, top_k, top_p, min_p, repetition_penalty)
    encoded = encode(lm, prompts, chat)
    check_length(lm, encoded, max_new_tokens)
    tokenizer = lm.text if stop or stream else lm.tokenizer
    numbers = range(len(encoded) * samples) if numbers is None else numbers
    ends = (*lm.config.eos_ids, *_ending(lm, stop))

    def transcript(i: int) -> Transcript:
        before = () if lm.config.cross else encoded[i // samples]
        emit = stream and (lambda piece: stream(i, piece))
        return Transcript(tokenizer, before, ends, stop, emit)

    def search(indices: list[int]) -> Sampler | Beams:
        eos = jnp.asarray(ends, jnp.int32)
        if beams > 1:
            limit, penalty = jnp.int32(max_new_tokens), jnp.float32(length_penalty)
            return Beams(settings, eos, limit, penalty, beams, early_stopping)
        own = jnp.array([numbers[i] for i in rows_of(indices)])
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        return Sampler(settings, fold(runtime.stream(seed, "generate"), own), eos, samples)

    def rows_of(indices: list[int]) -> list[int]:
        return [i * samples + s for i in indices for s in range(samples)]

    texts = [transcript(i) for i in range(len(encoded) * samples)]
    meter, size = meter or runtime.Meter(), max(1, batch_size // samples)
    size = size if fill else min(size, len(encoded))
    for indices in batches(encoded, size):
        read = reading(lm.config, [encoded[i] for i in indices], size)
        own = [texts[i] for i in rows_of(indices)]
        unwanted = samples * (size - len(indices))
        _run(lm, read, search(filled(indices, size)), own, unwanted, max_new_tokens, meter)
    return [Generation(encoded[i // samples], t.ids, t.text) for i, t in enumerate(texts)]


def _run(lm: LM, read, search, texts: list[Transcript], unwanted: int, limit, meter) -> None:
    """Generates one batch into its transcripts, and `unwanted` more texts.

    read: of its prompts, as `reading` gives it.
    """
    room, surplus = -(-limit // _ROOM) * _ROOM, [True] * unwanted
    run = loop.begin(meter, lm.network, room, lm.params, search, *read)
    for step in (*range(1, limit, _CHUNK), limit):
        if step > 1:
            run = loop.advance(meter, lm.network, lm.params, search, run, jnp.int32(step))
        for text, ids in zip(texts, search.settled(run.search, step), strict=False):
            text.update(ids)
        stopped = search.stop(run.search, np.array([text.done for text in texts] + surplus))
        run = run._replace(search=stopped)
        if not search.open(stopped):
            break
    for text in texts:
        text.close()


def _ending(lm: LM, stop: Sequence[str]) -> list[int]:
    """Ids of the stop texts that are special tokens, which texts do not show.

    Raises UserError for one that holds a special token beside other text: it would never be found.
    """
    if not stop or lm.tokenizer is None:
        return []
    special = {t.content: i for i, t in lm.text.special_tokens().items()}
    for text in stop:
        if inside := next((t for t in special if t in text and t != text), None):
            raise UserError(f"stop={text!r} holds the special token {inside!r}; name that alone")
    return [special[text] for text in stop if text in special]


def _check(lm: LM, max_new_tokens, temperature, beams, samples, stop, batch_size) -> None:
    if not (lm.config.causal and lm.head is None):
        raise UserError(f"model {lm.source!r} does not predict the next token; use a decoder")
    sizes = {"max_new_tokens": max_new_tokens, "beams": beams, "batch_size": batch_size}
    sizes["samples"] = samples
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    if beams > 1 and temperature:
        raise UserError(f"beams={beams} is a search without chance; drop temperature={temperature}")
    if samples > 1 and not temperature:
        raise UserError(
            f"samples={samples} texts would be the same at temperature={temperature}; raise it"
        )
    if "" in stop:
        raise UserError("stop holds an empty text, which would end every text; remove it")
