"""Text to token ids and back: a `tokenizers` tokenizer with its special ids and chat template."""

import functools
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import tokenizers
from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmlite.errors import UserError
from lmlite.models import tokenizer_config
from lmlite.models.json_file import read_json, write_json

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class Tokenizer:
    """backend: the `tokenizers` tokenizer; config: what tokenizer_config.json says of it.

    `config` is kept whole, so that saving writes back what was read. Of it are used the special
    tokens (`bos_token` ...) and `chat_template`.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict):
        backend.no_padding()  # a file may ask for both; batches are padded elsewhere
        backend.no_truncation()
        self.backend = backend
        self.config = config

    @property
    def vocab_size(self) -> int:
        """Number of tokens, those added to the vocabulary included."""
        return self.backend.get_vocab_size()

    @property
    def bos_id(self) -> int | None:
        """Id of the token that starts a text."""
        return self._id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text."""
        return self._id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """Id of the token that fills a batch."""
        return self._id("pad_token")

    @property
    def mask_token(self) -> str | None:
        """The token that hides another one, as BERT's [MASK]."""
        known = (self._token("mask_token"), "[MASK]", "<mask>")
        return next((t for t in known if t and self.backend.token_to_id(t) is not None), None)

    @property
    def mask_id(self) -> int | None:
        """Its id."""
        return None if self.mask_token is None else self.backend.token_to_id(self.mask_token)

    def special_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Tokens that `decode` leaves out, by id."""
        added = self.backend.get_added_tokens_decoder()
        return {i: token for i, token in added.items() if token.special}

    def with_ends(self, bos_id: int | None, eos_ids: Sequence[int]) -> "Tokenizer":
        """With the model's own ends of a text, where the tokenizer's files name none of them."""
        if self.bos_id is not None or self.eos_id is not None:
            return self
        ids = {"bos_token": bos_id, "eos_token": next(iter(eos_ids), None)}
        found = {name: i if i is None else self.backend.id_to_token(i) for name, i in ids.items()}
        named = {name: token for name, token in found.items() if token is not None}
        return Tokenizer(self.backend, self.config | named)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds what the model expects around it (such as BOS)."""
        return self.backend.encode(text, add_special_tokens=special).ids

    def encode_batch(self, texts: list[str], special: bool = True) -> list[list[int]]:
        """Token ids of each text, on every core."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=special)
        return [one.ids for one in encoded]

    def decode(self, ids, skip_special: bool = True) -> str:
        """The text of token ids; `skip_special` leaves special tokens out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def chat(self, messages: list[dict], add_generation_prompt: bool = True) -> str:
        """The prompt that the model's chat template makes of [{"role": ..., "content": ...}, ...].

        It holds its own special tokens: encode it with `special=False`.
        Raises UserError where the model has no template or the template refuses the messages.
        """
        if not self.config.get("chat_template"):
            raise UserError("this model has no chat template; prompt it with plain text")
        special = {name: token for name in _SPECIAL if (token := self._token(name))}
        try:
            return _template(self.config["chat_template"]).render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **special,
            )
        except TemplateError as e:
            raise UserError(f"the chat template refuses the messages: {e}") from e

    def save(self, directory: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(directory / "tokenizer.json"))
        write_json(directory / "tokenizer_config.json", self.config)

    def _token(self, name: str) -> str | None:
        token = self.config.get(name)
        return token["content"] if isinstance(token, dict) else token

    def _id(self, name: str) -> int | None:
        token = self._token(name)
        return None if token is None else self.backend.token_to_id(token)


def from_dir(directory: Path, rows: int | None = None) -> Tokenizer | None:
    """The tokenizer of a Hugging Face directory, or None where it has none.

    rows: of the model's token table; tokenizer_config.json may name tokens that are beyond it.
    Reads tokenizer.json or, of older models, GPT-2's and RoBERTa's vocab.json and merges.txt or
    BERT's vocab.txt.
    Raises UserError for a damaged file.
    """
    directory = Path(directory)
    config = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter has precedence
        if (directory / file).exists():
            config |= read_json(directory / file)
    backend = _backend(directory, config)
    if backend is None:
        return None
    tokenizer_config.normalize(backend, config)
    tokenizer_config.add_tokens(backend, config, rows)
    if isinstance(config.get("chat_template"), list):
        named = {one["name"]: one["template"] for one in config["chat_template"]}
        config["chat_template"] = named.get("default")
    if (directory / "chat_template.jinja").exists():
        config["chat_template"] = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    return Tokenizer(backend, config)


def byte_level(vocab: dict[str, int], merges: list[tuple[str, str]], **model):
    """GPT-2's byte-level BPE (Radford et al. 2019); `model` goes to `tokenizers.models.BPE`."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges, **model))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def _backend(directory: Path, config: dict) -> tokenizers.Tokenizer | None:
    path = directory / "tokenizer.json"
    try:
        if path.exists():
            return tokenizers.Tokenizer.from_file(str(path))
        path = directory / "merges.txt"
        if path.exists():
            vocab = read_json(directory / "vocab.json")
            lines = path.read_text(encoding="utf-8").split("\n")
            merges = [tuple(line.split(" ")) for line in lines if line and line[:9] != "#version:"]
            return _of_merges(vocab, merges)
        path = directory / "vocab.txt"
        if path.exists():
            return _of_pieces(path.read_text(encoding="utf-8").splitlines(), config)
    except UserError:
        raise
    except Exception as e:  # `tokenizers` raises bare Exception
        raise UserError(f"{path} is not a tokenizer ({e})") from e
    return None


def _of_merges(vocab: dict[str, int], merges) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer, or RoBERTa's and BART's, which puts <s> and </s> around a text."""
    backend = byte_level(vocab, merges)
    if not {"<s>", "</s>", "<mask>"} <= vocab.keys():
        backend.add_special_tokens([t for t in ("<|endoftext|>",) if t in vocab])
        return backend
    mask = tokenizers.AddedToken("<mask>", lstrip=True)
    backend.add_special_tokens([t for t in ("<s>", "<pad>", "</s>", "<unk>") if t in vocab])
    backend.add_special_tokens([mask])
    ends = [(token, vocab[token]) for token in ("</s>", "<s>")]
    backend.post_processor = tokenizers.processors.RobertaProcessing(*ends, add_prefix_space=False)
    return backend


def _of_pieces(pieces: list[str], config: dict) -> tokenizers.Tokenizer:
    """BERT's WordPiece (Devlin et al. 2018); lower case unless tokenizer_config.json says no."""
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    special = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocab]
    backend.add_special_tokens(special)
    backend.post_processor = tokenizers.processors.BertProcessing(
        *((token, vocab[token]) for token in ("[SEP]", "[CLS]"))
    )
    return backend


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant says, for losses on it alone."""

    tags = frozenset({"generation"})

    def parse(self, parser):
        """What stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.lru_cache
def _template(source: str):
    """A compiled chat template, with the names and the blank handling of `transformers`."""

    def refuse(message):
        raise TemplateError(message)

    def tojson(value, **options):
        return json.dumps(value, ensure_ascii=False, **options)

    extensions = ["jinja2.ext.loopcontrols", _Generation]
    world = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions
    )
    world.filters["tojson"] = tojson
    world.globals["raise_exception"] = refuse
    world.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return world.from_string(source)
