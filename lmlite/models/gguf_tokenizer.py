"""A tokenizer rebuilt from the metadata of a GGUF file, which has no tokenizer.json."""

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer, byte_level

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # of tokenizer.ggml.token_type
_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
}
# How text is cut before merging. Llama 3 keeps up to three digits together, Qwen 2 one.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = "|".join([_WORDS, r"\p{N}{1,3}", _REST])
_QWEN2 = "|".join([_WORDS, r"\p{N}", _REST])


def build(metadata: dict) -> Tokenizer | None:
    """The tokenizer that a GGUF's metadata describes, or None where it describes none.

    Raises UserError for a kind of tokenizer that cannot be rebuilt.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or kind == "none":
        return None
    if kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise UserError(f"GGUF tokenizer {kind!r} is not known; known: {known}")
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {name: tokens[metadata[key]] for name, key in _SPECIAL.items() if key in metadata}
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    backend = _KINDS[kind](metadata)
    _add_tokens(backend, metadata)
    _add_ends(backend, metadata, config)
    return Tokenizer(backend, config)


def _byte_level(metadata: dict) -> Backend:
    """GPT-2's byte-level BPE behind the pre-tokenizer that `tokenizer.ggml.pre` names."""
    pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if pre not in _PRE:
        known = ", ".join(_PRE)
        raise UserError(f"GGUF pre-tokenizer {pre!r} is not known; known: {known}")
    vocab = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    backend = byte_level(vocab, merges, ignore_merges=_PRE[pre] == _LLAMA3)
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    elif _PRE[pre]:
        cut = pre_tokenizers.Split(Regex(_PRE[pre]), "isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, spell])
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece(metadata: dict) -> Backend:
    """SentencePiece's BPE (Kudo & Richardson 2018): spaces as '▁', unknown characters as bytes."""
    tokens = [_respell(token) for token in metadata["tokenizer.ggml.tokens"]]
    backend = Backend(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            _merges(tokens, metadata),
            unk_token=tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    # As normalizers: the pre-tokenizer for this adds no space to a text that begins with one.
    spaces = [normalizers.Prepend("▁")] * prefix + [normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence(spaces)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    return backend


def _respell(token: str) -> str:
    """Gemma's files hold runs of spaces as they are."""
    return token.replace(" ", "▁") if token.isspace() else token


def _merges(tokens: list[str], metadata: dict) -> list[tuple[str, str]]:
    """Every way to make a token of two others, the best-scored token first.

    Gemma's tokens are in the order of their merging; its scores are not.
    """
    scores, kinds = metadata["tokenizer.ggml.scores"], metadata["tokenizer.ggml.token_type"]
    if metadata.get("general.architecture", "").startswith("gemma"):
        scores = range(0, -len(tokens), -1)
    score = {
        token: score
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
        if kind in (_NORMAL, _USER_DEFINED)
    }
    return [
        (token[:i], token[i:])
        for token in sorted(score, key=score.__getitem__, reverse=True)
        for i in range(len(token) - 1, 0, -1)
        if token[:i] in score and token[i:] in score
    ]


def _add_tokens(backend: Backend, metadata: dict) -> None:
    """Tokens that are matched whole; control tokens are special, and not decoded as text."""
    kinds = metadata["tokenizer.ggml.token_type"]
    backend.add_tokens(
        [
            AddedToken(_respell(token), normalized=False, special=kind == _CONTROL)
            for token, kind in zip(metadata["tokenizer.ggml.tokens"], kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )


def _add_ends(backend: Backend, metadata: dict, config: dict) -> None:
    """BOS and EOS around a text, where the file asks for them or its kind has them by custom."""
    sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    llama3 = _PRE.get(metadata.get("tokenizer.ggml.pre")) == _LLAMA3
    asked = {
        "bos_token": metadata.get("tokenizer.ggml.add_bos_token", sentencepiece or llama3),
        "eos_token": metadata.get("tokenizer.ggml.add_eos_token", False),
    }
    ends = {name: config[name] for name, wanted in asked.items() if wanted and name in config}
    if ends:
        text = [ends.get("bos_token"), "$A", ends.get("eos_token")]
        backend.post_processor = TemplateProcessing(
            single=[piece for piece in text if piece],
            special_tokens=[(token, backend.token_to_id(token)) for token in ends.values()],
        )


_KINDS = {"gpt2": _byte_level, "llama": _sentencepiece}
_PRE = {  # tokenizer.ggml.pre -> expression; None: GPT-2's own, which ByteLevel has
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
}
