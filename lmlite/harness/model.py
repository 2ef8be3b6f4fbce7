"""A language model as lm-evaluation-harness asks for it.

    python -m lmlite.harness --model lmlite --model_args source=package:smollm2-135m-instruct ...

Its rules for special tokens, truncation and rolling windows are those of its Hugging Face backend,
so that values agree; requests are planned as trees of prefixes, so that shared tokens cost once.
"""

from collections.abc import Sequence
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmlite.arms.choices import scored_items
from lmlite.data.pack import choice_item
from lmlite.decode import generate
from lmlite.errors import UserError
from lmlite.icl.encode import Encoded, first_token
from lmlite.icl.plan import TREE_TOKENS, groups, tree_item
from lmlite.icl.score import READOUT_ROWS, batch_states, summed
from lmlite.models.config import DecoderConfig
from lmlite.models.load import load
from lmlite.peft import load_adapter
from lmlite.runtime import Meter, Program

_MAX_GEN_TOKS = 256  # the harness's default
_GREEDY = {"do_sample", "temperature", "until"}  # what generation reads beside the length


def _scored(network, params, batch):
    """float32[2, U, M]: log-probabilities, and 1 where another token was likelier."""

    def block(xt):
        x, t = xt
        logp = jax.nn.log_softmax(network.readout(params, x), axis=-1)
        chosen = jnp.take_along_axis(logp, t, axis=-1)
        return chosen, (chosen < logp.max(axis=-1, keepdims=True)).astype(jnp.float32)

    states = batch_states(network, 0, params, batch)
    return jnp.stack(jax.lax.map(block, (states, batch.targets), batch_size=READOUT_ROWS))


_score = Program(_scored, static=1)


@register_model("lmlite")
class LmliteLM(TemplateLM):
    """source: what `lmlite.load` takes; adapter: a PEFT directory.

    max_length: of a prompt with its continuation, the model's context by default. tree_tokens:
    bounds the memory of scoring.
    """

    def __init__(
        self,
        source: str = "",
        dtype: str = "float32",
        adapter: str = "",
        max_length: int = 0,
        tree_tokens: int = TREE_TOKENS,
        batch_size: int | str = 16,
        **ignored,
    ):
        super().__init__()
        if unknown := sorted(set(ignored) - {"max_batch_size", "device"}):
            known = "source, dtype, adapter, max_length, tree_tokens"
            raise UserError(f"model_args: {unknown[0]!r} is unknown; known: {known}")
        if not source:
            raise UserError("model_args: source is missing; write source=package:... or a folder")
        lm = load(source, dtype)
        self.lm = load_adapter(lm, adapter) if adapter else lm
        self.backend = "seq2seq" if lm.config.cross else "causal"
        self.max_length = int(max_length) or self.lm.room
        self._tree_tokens = int(tree_tokens)
        self._batch = int(batch_size) if str(batch_size).isdecimal() else 16

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.lm.text.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context."""
        return first_token(self.lm.text)[0]

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of requests."""
        return self.lm.source.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs):
        """Token ids; special tokens by default as the tokenizer adds them."""
        special = True if add_special_tokens is None else add_special_tokens
        start = self.lm.text.decode([self.prefix_token_id], skip_special=False)
        if add_special_tokens is None and string.startswith(start):
            special = False
        return self.lm.text.encode(string, special=special)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True):
        """The prompt of a conversation."""
        return self.lm.text.chat(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own template."""
        return self.lm.text.config.get("chat_template") if chat_template else None

    def _loglikelihood_tokens(self, requests, **kwargs) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding gives it) of each continuation."""
        cut = [self._cut(context, continuation) for _, context, continuation in requests]
        order = sorted(range(len(cut)), key=lambda i: cut[i])
        found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        shared = [list(same) for _, same in groupby(order, key=lambda i: cut[i][0])]
        encoded = [Encoded(cut[same[0]][0], [cut[i][1] for i in same]) for same in shared]
        for same, values in zip(shared, self._values(encoded), strict=True):
            for i, (logp, misses) in zip(same, values.T, strict=True):
                found[i] = float(logp), misses == 0
        for (texts, _, _), one in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, one)
        return found

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """As much of the end of both as the context holds."""
        if self.lm.config.cross:
            return context[-self.max_length :], continuation[: self.max_length]
        if len(continuation) > self.max_length:
            raise UserError(
                f"a continuation has {len(continuation)} tokens, max_length={self.max_length}"
            )
        room = self.max_length + 1 - len(continuation)
        return context[-room:], continuation

    def _values(self, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        """[2, C] of each: log-probabilities and misses of greedy decoding."""
        lm, meter = self.lm, Meter()
        trees = [[i] for i in range(len(encoded))]
        if isinstance(lm.config, DecoderConfig):
            trees = groups(encoded, self._tree_tokens)
            items = [
                tree_item([encoded[i] for i in tree])
                if len(tree) > 1
                else choice_item(*encoded[tree[0]])
                for tree in trees
            ]
        else:
            items = scored_items(lm, encoded)
        context = self.max_length + lm.network.standing
        sums = summed(lambda batch, _: _score(meter, lm.network, lm.params, batch), items, context)
        found: list[np.ndarray] = [np.empty(0)] * len(encoded)
        for tree, values in zip(trees, sums, strict=True):
            ends = np.cumsum([len(encoded[i].choices) for i in tree])
            for i, part in zip(tree, np.split(values, ends[:-1], axis=-1), strict=True):
                found[i] = part
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text, in windows as long as the context."""
        windows = []
        for i, request in enumerate(requests):
            (text,) = request.args
            tokens = self.tok_encode(text)
            parts = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            windows += [(i, None, *make_disjoint_window(part)) for part in parts]
        values = self._loglikelihood_tokens([window[1:] for window in windows])
        totals = [0.0] * len(requests)
        for (i, *_), (logp, _) in zip(windows, values, strict=True):
            totals[i] += logp
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The text after each context, up to its stop texts."""
        found = [""] * len(requests)
        keys = [_options(request.args[1]) for request in requests]
        for key in dict.fromkeys(keys):
            chosen = [i for i, own in enumerate(keys) if own == key]
            until, limit, temperature = key
            room = self.max_length - limit
            if room < 1:
                raise UserError(f"max_gen_toks={limit} leaves no room of {self.max_length} tokens")
            prompts = [self.tok_encode(requests[i].args[0])[-room:] for i in chosen]
            made = generate(
                self.lm, prompts, max_new_tokens=limit, stop=until, temperature=temperature,
                batch_size=self._batch,
            )  # fmt: skip
            for i, one in zip(chosen, made, strict=True):
                found[i] = one.text
                self.cache_hook.add_partial("generate_until", requests[i].args, one.text)
        return found


def _options(given: dict) -> tuple[tuple[str, ...], int, float]:
    """(stop texts, most tokens, temperature). UserError for what generation here does not know."""
    aliases = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    if unknown := sorted(set(given) - _GREEDY - set(aliases)):
        raise UserError(f"generation_kwargs: {unknown[0]!r} is not supported; leave it out")
    until = given.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    limit = next((int(given[name]) for name in aliases if name in given), _MAX_GEN_TOKS)
    temperature = float(given.get("temperature") or 0.0)
    sampled = given.get("do_sample", temperature > 0)
    return tuple(text for text in until if text), limit, temperature if sampled else 0.0
