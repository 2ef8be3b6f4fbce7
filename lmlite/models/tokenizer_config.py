"""What tokenizer_config.json says beyond, or against, tokenizer.json; `transformers` goes by it."""

from collections.abc import Iterator

import tokenizers

_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_LISTED = ("additional_special_tokens", "extra_special_tokens")  # the older name and the newer
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_NORMALIZER = {  # key -> attribute of BertNormalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that have no such keys


def add_tokens(backend: tokenizers.Tokenizer, config: dict, rows: int | None) -> None:
    """Adds the tokens that `config` declares and the backend does not know as added ones.

    rows: of the model's token table; a token whose id would lie beyond them is left out. The ids
    are those that `transformers` gives: a word of the vocabulary keeps its own, others follow, in
    the order of the ids they are declared with, then of their names.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in _declared(config):
        if token.content not in known and (rows is None or _id(backend, token) < rows):
            known.add(token.content)
            backend.add_tokens([token])


def normalize(backend: tokenizers.Tokenizer, config: dict) -> None:
    """Sets what `config` says of a BERT normalizer, such as whether it makes letters small."""
    normalizer = backend.normalizer
    bert = isinstance(normalizer, tokenizers.normalizers.BertNormalizer)
    if not bert or config.get("tokenizer_class") in _AS_IT_IS:
        return
    for key, attribute in _NORMALIZER.items():
        if key == "strip_accents" and key in config or config.get(key) is not None:
            setattr(normalizer, attribute, config[key])  # accents: None goes by lower case
    backend.normalizer = normalizer


def _declared(config: dict) -> Iterator[tokenizers.AddedToken]:
    named = [_token(config[name], special=True) for name in _NAMED if config.get(name)]
    roles = {token.content for token in named}
    by_id = config.get("added_tokens_decoder") or {}
    for i in sorted(by_id, key=int):
        special = {"special": True} if by_id[i]["content"] in roles else {}
        yield _token(by_id[i], **special)
    yield from named
    for name in _LISTED:
        listed = config.get(name) or ()
        listed = listed.values() if isinstance(listed, dict) else listed
        yield from (_token(one, special=True) for one in listed)


def _token(told: str | dict, **flags: bool) -> tokenizers.AddedToken:
    """A token of its text, or of the record that tokenizer_config.json may have of it."""
    if isinstance(told, str):
        return tokenizers.AddedToken(told, normalized=False, **flags)
    own = {name: told[name] for name in _FLAGS if name in told}
    return tokenizers.AddedToken(told["content"], **own | flags)


def _id(backend: tokenizers.Tokenizer, token: tokenizers.AddedToken) -> int:
    """The id that it gets when it is added."""
    own = backend.token_to_id(token.content)
    if own is not None:
        return own
    added = backend.get_added_tokens_decoder()
    return max(backend.get_vocab_size(with_added_tokens=False), *(i + 1 for i in added), 0)
