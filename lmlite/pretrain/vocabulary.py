"""A tokenizer trained on text, with the special tokens that an objective needs.

Special tokens have the first ids. 'bpe' and 'unigram' work on bytes, so they spell every text and
give it back exactly; 'characters' does for the characters it knows; 'words' loses the spacing.
"""

from collections.abc import Sequence

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

from lmlite.errors import UserError
from lmlite.models.tokenizer import Tokenizer

UNKNOWN = "<unk>"
LOSSY = ("words",)
_SPECIAL = {  # as in GPT-2, BERT and T5
    "causal": {"eos_token": "<|endoftext|>"},
    "masked": {
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "spans": {"pad_token": "<pad>", "eos_token": "</s>"},
}
_AROUND = {"masked": "[CLS] $A [SEP]", "spans": "$A </s>"}


def train(
    documents: Sequence[str], kind: str, vocab_size: int, objective: str, sentinels: int = 0
) -> Tokenizer:
    """A tokenizer of `kind` 'characters', 'words', 'bpe' (Sennrich et al. 2016, on bytes as in
    GPT-2) or 'unigram' (Kudo 2018, arXiv:1804.10959, on bytes), for `objective`.

    vocab_size: tokens at most, the special ones included; 'characters' takes all characters.
    sentinels: how many '<extra_id_i>' a row of span corruption needs.
    Raises UserError for an unknown kind and a vocabulary too small for it.
    """
    if kind not in _KINDS:
        raise UserError(f"tokenizer.kind={kind!r} is unknown; known: {', '.join(_KINDS)}")
    names = _SPECIAL[objective]
    special = [*names.values(), *(f"<extra_id_{i}>" for i in range(sentinels))]
    backend = _KINDS[kind](documents, vocab_size, special)
    backend.add_special_tokens(special)
    if objective in _AROUND:
        ids = [(token, backend.token_to_id(token)) for token in special]
        backend.post_processor = processors.TemplateProcessing(
            single=_AROUND[objective], special_tokens=ids
        )
    return Tokenizer(backend, {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def _characters(documents, vocab_size, special):
    known = [*special, UNKNOWN, *sorted(set().union(*documents))]
    vocab = {token: i for i, token in enumerate(known)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return backend


def _words(documents, vocab_size, special):
    _check_size("words", vocab_size, len(special) + 2)
    backend = tokenizers.Tokenizer(models.WordLevel({}, UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=[*special, UNKNOWN], show_progress=False
    )
    backend.train_from_iterator(documents, trainer)
    return backend


def _bpe(documents, vocab_size, special):
    return _on_bytes("bpe", models.BPE(), trainers.BpeTrainer, documents, vocab_size, special)


def _unigram(documents, vocab_size, special):
    model = models.Unigram()
    return _on_bytes("unigram", model, trainers.UnigramTrainer, documents, vocab_size, special)


def _on_bytes(kind, model, trainer, documents, vocab_size, special):
    _check_size(kind, vocab_size, 256 + len(special))
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    learn = trainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(documents, learn)
    return backend


def _check_size(kind: str, vocab_size: int, least: int) -> None:
    if vocab_size < least:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} is too small for kind {kind!r}; it needs {least}"
        )


_KINDS = {"characters": _characters, "words": _words, "bpe": _bpe, "unigram": _unigram}
