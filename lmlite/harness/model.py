"""A language model as lm-evaluation-harness asks for it, by the rules of its Hugging Face backend:
special tokens, texts cut from the left, rolling windows, empty contexts, stop texts.
"""

import dataclasses
from itertools import groupby

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import MODEL_REGISTRY, register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmlite.decode import generate
from lmlite.errors import UserError
from lmlite.harness.options import defaults, options
from lmlite.harness.scoring import Request, score
from lmlite.icl.encode import first_token
from lmlite.models.lm import LM
from lmlite.models.load import load, locate
from lmlite.models.trees import TREE_TOKENS
from lmlite.peft import load_adapter

_BATCH = 16  # texts that are generated together where batch_size is no number


class LmliteLM(TemplateLM):
    """source, dtype, quantize: what `lmlite.load` takes; adapter: a PEFT directory; max_length: of
    a prompt with its continuation, 0 for the model's context; tree_tokens: of texts scored
    together, which bounds the memory; batch_size: of texts generated together. The device is JAX's
    own choice: `device`, a flag of lm_eval, is not read.

    Raises UserError for another argument, and what cannot be loaded or does not continue texts.
    """

    def __init__(
        self,
        source: str = "",
        dtype: str = "float32",
        quantize: str = "",
        adapter: str = "",
        max_length: int = 0,
        tree_tokens: int = TREE_TOKENS,
        batch_size: int | str = _BATCH,
        **others,
    ):
        super().__init__()
        if unknown := sorted(set(others) - {"max_batch_size", "device"}):
            known = "source, dtype, adapter, max_length, tree_tokens"
            raise UserError(f"model_args: {unknown[0]!r} is unknown; known: {known}")
        if not source:
            raise UserError("model_args: source is missing; write source=package:NAME or a folder")
        lm = load(source, dtype, quantize)
        if not (lm.config.causal or lm.config.cross):
            raise UserError(f"model {source!r} does not continue texts; use a decoder")
        self.lm = _ending(load_adapter(lm, adapter) if adapter else lm)
        self.backend = "seq2seq" if lm.config.cross else "causal"
        self.max_length = _length(self.lm, int(max_length))
        self.batch_size = int(batch_size) if str(batch_size).isdecimal() else _BATCH
        self._tree_tokens = int(tree_tokens)

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
        """Token ids; special ones as the tokenizer adds them, unless the text brings them."""
        if add_special_tokens is None:
            known = (i for i in (self.lm.text.bos_id, self.lm.text.eos_id) if i is not None)
            starts = [self.lm.text.decode([i], skip_special=False) for i in known]
            add_special_tokens = not string.startswith(tuple(starts[:1]))
        return self.lm.text.encode(string, special=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own template."""
        return self.lm.text.config.get("chat_template") if chat_template else None

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True):
        """The prompt of a conversation; without generation prompt its last message goes on.

        A system message that the template refuses is left out, as the harness's own backend does.
        """
        try:
            text = self.lm.text.chat(chat_history, add_generation_prompt)
        except UserError:
            chat_history = [one for one in chat_history if one["role"] != "system"]
            text = self.lm.text.chat(chat_history, add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"]
        last = last.lstrip() if last.lstrip() in text else last.strip()
        return text[: text.rindex(last) + len(last)]

    def _loglikelihood_tokens(self, requests, **kwargs) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding gives it) of each continuation."""
        cut = [self._cut(*request) for request in requests]
        found = score(self.lm, cut, self._tree_tokens, self.max_length)
        for (texts, _, _), one in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, one)
        return found

    def _cut(self, texts, context: list[int], continuation: list[int]) -> Request:
        """As much of the end of the context as the model takes."""
        if not 0 < len(continuation) <= self.max_length:
            raise UserError(
                f"the continuation {texts and texts[1]!r} has {len(continuation)} tokens; "
                f"it must have 1 to {self.max_length} (max_length)"
            )
        room = self.max_length + (0 if self.lm.config.cross else 1 - len(continuation))
        return Request(context[-room:], continuation)

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text, in windows as long as the context."""
        owners, windows = [], []
        for i, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            parts = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            for part in parts:
                owners.append(i)
                windows.append((None, *make_disjoint_window(part)))
        totals = [0.0] * len(requests)
        for i, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[i] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The text after each context, up to its stop texts."""
        usual = defaults(locate(self.lm.source))
        asked = [options(request.args[1], usual) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: repr(asked[i]))
        found = [""] * len(requests)
        for _, same in groupby(order, key=lambda i: repr(asked[i])):
            chosen = list(same)
            texts = [requests[i].args[0] for i in chosen]
            for i, text in zip(chosen, self._written(texts, asked[chosen[0]]), strict=True):
                found[i] = text
                self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return found

    def _written(self, contexts: list[str], asked: dict) -> list[str]:
        limit = asked["max_new_tokens"]
        room = self.max_length - (0 if self.lm.config.cross else limit)
        if room < 1:
            raise UserError(f"max_gen_toks={limit} leaves no room in max_length={self.max_length}")
        prompts = [self.tok_encode(text)[-room:] or [self.prefix_token_id] for text in contexts]
        made = generate(self.lm, prompts, **asked, batch_size=self.batch_size)
        return [_before(self.lm.text.decode(one.ids), asked["stop"]) for one in made]


if "lmlite" not in MODEL_REGISTRY:  # where it is, a harness is reading the entry point
    register_model("lmlite")(LmliteLM)


def _before(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first of the stop texts."""
    return text[: min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))]


def _ending(lm: LM) -> LM:
    """The model with its tokenizer's end of text among the tokens that end one."""
    known, end = lm.config.eos_ids, lm.text.eos_id
    if end is None or end in known:
        return lm
    return dataclasses.replace(lm, config=dataclasses.replace(lm.config, eos_ids=(*known, end)))


def _length(lm: LM, asked: int) -> int:
    """Tokens of a prompt with its continuation."""
    if not 0 <= asked <= lm.room:
        raise UserError(f"model_args: max_length={asked} is not in 1 .. {lm.room}, the context")
    return asked or lm.room
