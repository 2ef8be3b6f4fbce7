"""Tokenizers from a GGUF, a directory and GPT-2's files; ids against stored references."""

import json
from pathlib import Path

import pytest

from lmlite.data import packages
from lmlite.errors import UserError
from lmlite.models import gguf_file, gguf_tokenizer, tokenizer

REFERENCE = json.loads(
    (Path(__file__).parent / "references" / "tokenizer_smollm2.json").read_text()
)


@pytest.fixture(scope="module")
def smollm2():
    (path,) = packages.members("smollm2-135m-instruct")
    return gguf_tokenizer.build(gguf_file.read(path).metadata)


def sentencepiece(**changes):
    """Metadata of a SentencePiece vocabulary in which 'ab' outranks 'bc'."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words = ["ab", "bc", "abc", "▁ab", "▁", "a", "b", "c", "  "]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces + words,
        "tokenizer.ggml.scores": [0.0] * len(pieces) + [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    } | changes


def tokens(built, text, **options):
    return [built.backend.id_to_token(i) for i in built.encode(text, **options)]


@pytest.mark.parametrize("case", REFERENCE["texts"], ids=lambda case: ascii(case["text"][:20]))
def test_ids_equal_the_reference_and_decode_to_the_text(smollm2, case):
    assert smollm2.encode(case["text"]) == case["ids"]
    assert smollm2.decode(case["ids"], skip_special=False) == case["text"]


def test_batch_equals_single(smollm2):
    texts = [case["text"] for case in REFERENCE["texts"]]
    assert smollm2.encode_batch(texts) == [case["ids"] for case in REFERENCE["texts"]]


@pytest.mark.parametrize("case", REFERENCE["chats"])
def test_chat_equals_the_reference(smollm2, case):
    assert smollm2.chat(case["messages"]) == case["prompt"]
    assert smollm2.chat(case["messages"], add_generation_prompt=False) == case["bare"]
    assert smollm2.encode(case["prompt"], special=False) == case["ids"]


def test_special_ids(smollm2):
    assert (smollm2.bos_id, smollm2.eos_id, smollm2.pad_id) == (1, 2, 2)
    assert smollm2.vocab_size == 49152
    assert smollm2.decode([1, 504, 2]) == "The"


def test_saved_tokenizer_is_the_same(smollm2, tmp_path):
    smollm2.save(tmp_path)
    again = tokenizer.from_dir(tmp_path)
    assert again.config == smollm2.config
    for case in REFERENCE["texts"]:
        assert again.encode(case["text"]) == case["ids"]


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes():
    built = gguf_tokenizer.build(sentencepiece())
    assert tokens(built, "abc") == ["<s>", "▁", "abc"]
    assert tokens(built, "abb", special=False) == ["▁ab", "b"]
    assert tokens(built, " ab", special=False) == ["▁", "▁ab"]  # a space of its own is kept
    assert tokens(built, "é", special=False) == ["▁", "<0xC3>", "<0xA9>"]
    assert built.decode(built.encode("ab é")) == "ab é"


def test_sentencepiece_options():
    plain = gguf_tokenizer.build(
        sentencepiece(
            **{"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_eos_token": True}
        )
    )
    assert tokens(plain, "ab") == ["<s>", "ab", "</s>"]
    silent = gguf_tokenizer.build(sentencepiece(**{"tokenizer.ggml.add_bos_token": False}))
    assert tokens(silent, "ab") == ["▁ab"]


def test_gemma_merges_in_the_order_of_its_tokens_and_spells_spaces():
    changes = {"general.architecture": "gemma3", "tokenizer.ggml.add_space_prefix": False}
    changes["tokenizer.ggml.scores"] = [0.0] * 259 + [-9.0, -1.0] + [-5.0] * 7  # 'bc' first
    changes["tokenizer.ggml.token_type"] = [2, 3, 3] + [6] * 256 + [1, 1, 5] + [1] * 6  # no 'abc'
    built = gguf_tokenizer.build(sentencepiece(**changes))
    assert tokens(built, "abc", special=False) == ["ab", "c"]
    assert tokens(built, "a  b", special=False) == ["a", "▁▁", "b"]


@pytest.mark.parametrize(
    "pre, pieces", [("gpt-2", ["12345"]), ("smollm", list("12345")), ("llama-bpe", ["123", "45"]),
                    ("qwen2", list("12345"))]
)  # fmt: skip
def test_pre_tokenizers_cut_digits_their_own_way(pre, pieces):
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": ["x"],
        "tokenizer.ggml.token_type": [1],
        "tokenizer.ggml.merges": [],
    }
    cut = gguf_tokenizer.build(metadata).backend.pre_tokenizer.pre_tokenize_str("12345")
    assert [piece for piece, _ in cut] == pieces


def test_qwen_composes_characters():
    metadata = sentencepiece(**{
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.merges": []
    })  # fmt: skip
    assert gguf_tokenizer.build(metadata).backend.normalizer.normalize_str("e\u0301") == "é"


def gpt2_files(folder: Path, **config):
    vocab = ["a", "b", "Ġ", "ab", "Ġab", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.from_dir(folder)


def test_gpt2_files(tmp_path):
    built = gpt2_files(tmp_path, eos_token={"content": "<|endoftext|>"})
    assert built.encode("ab ab<|endoftext|>") == [3, 4, 5]
    assert (built.bos_id, built.eos_id, built.pad_id) == (None, 5, None)


def test_a_list_of_word_pieces_is_read_as_the_whole_tokenizer(tmp_path):
    """MiniLM's own vocabulary without its tokenizer.json."""
    folder = next(p for p in packages.members("all-minilm-l6-v2") if p.name == "tokenizer.json")
    whole = tokenizer.from_dir(folder.parent)
    pieces = sorted(vocab := whole.backend.get_vocab(), key=vocab.get)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    found = tokenizer.from_dir(tmp_path)
    for text in ("A man's caf\u00e9, UNAFFABLE!", "\u5317\u4eac 12.5%  x", "[MASK] of [SEP]"):
        assert found.encode(text) == whole.encode(text)
        assert found.decode(found.encode(text)) == whole.decode(whole.encode(text))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tokenizer.from_dir(tmp_path).encode("A", special=False) == [vocab["[UNK]"]]


def test_roberta_files_put_a_text_between_its_marks(tmp_path):
    vocab = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "\u0120", "ab", "<mask>"]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    found = tokenizer.from_dir(tmp_path)
    assert found.encode("ab a") == [0, 7, 6, 4, 2]
    assert found.encode("ab <mask>") == [0, 7, 8, 2]  # which takes the blank before it
    assert found.decode([0, 7, 6, 4, 2]) == "ab a"


def told(content, **flags):
    """A token as tokenizer_config.json may describe it."""
    return {"content": content, "special": True, "lstrip": False, "rstrip": False,
            "normalized": False, "single_word": False} | flags  # fmt: skip


DECLARED = {
    "eos_token": "b",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "additional_special_tokens": ["<x>", "<z>"],
    "added_tokens_decoder": {
        "10": told("<pad>", special=False),
        "7": told("<x>"),
        "6": told("<y>", special=False, lstrip=True),
    },
}


def declared(folder, **config):
    """A tokenizer.json that knows none of the tokens its tokenizer_config.json declares."""
    built = gpt2_files(folder)
    built.save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_tokens_that_the_config_alone_declares_are_added(tmp_path):
    found = tokenizer.from_dir(declared(tmp_path, **DECLARED))
    assert found.encode("a<x> <y><pad><mask><z>b") == [0, 7, 6, 8, 9, 10, 1]
    assert found.decode([0, 7, 6, 8, 9, 10, 1, 0]) == "a<y>a"
    assert (found.pad_id, found.mask_id, found.eos_id) == (8, 9, 1)
    found.save(tmp_path / "b")
    assert tokenizer.from_dir(tmp_path / "b").encode("<z><mask>") == [10, 9]


def test_tokens_beyond_the_models_table_are_not_added(tmp_path):
    found = tokenizer.from_dir(declared(tmp_path, **DECLARED), rows=8)
    assert found.encode("<x><y>") == [7, 6]
    assert (found.pad_id, found.vocab_size) == (None, 8)


def test_declared_tokens_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    declared(tmp_path, tokenizer_class="PreTrainedTokenizerFast", **DECLARED)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    peer, found = transformers.AutoTokenizer.from_pretrained(tmp_path), tokenizer.from_dir(tmp_path)
    for text in ("a<x> <y><pad><mask><z>b", "ab <z> ab"):
        ids = peer(text)["input_ids"]
        assert found.encode(text) == ids
        assert found.decode(ids) == peer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("config, expected", [
    ({}, ["hello", "e"]),
    ({"do_lower_case": False}, ["Hello", "\u00e9"]),
    ({"do_lower_case": True, "strip_accents": False}, ["hello", "\u00e9"]),
    ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, ["hello", "e"]),
])  # fmt: skip
def test_what_the_config_says_of_letters_comes_first(tmp_path, config, expected):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello", "\u00e9", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokenizer.from_dir(tmp_path).save(tmp_path)  # in lower case
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokens(tokenizer.from_dir(tmp_path), "Hello \u00e9", special=False) == expected


def test_directory_without_tokenizer(tmp_path):
    assert tokenizer.from_dir(tmp_path) is None


def test_template_file_comes_first_and_sees_the_special_tokens(tmp_path):
    gpt2_files(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}\n  {% if tools is none %}\n{{ m | tojson }}\n"
        "  {% endif %}\n{% endfor %}"
    )
    built = gpt2_files(tmp_path, bos_token="<|endoftext|>", chat_template="not this")
    assert built.chat([{"role": "é"}]) == '<|endoftext|>{"role": "é"}\n'


def test_a_tokenizer_that_names_no_ends_has_the_models(tmp_path):
    bare = gpt2_files(tmp_path)
    end = bare.backend.token_to_id("<|endoftext|>")
    assert bare.bos_id is None is bare.eos_id
    known = bare.with_ends(end, (end,))
    assert (known.bos_id, known.eos_id) == (end, end) and bare.eos_id is None
    named = gpt2_files(tmp_path, eos_token="<|endoftext|>")
    assert named.with_ends(0, (0,)).bos_id is None  # its files say that nothing starts a text
    assert bare.with_ends(None, ()).eos_id is None


def test_templates_may_mark_what_the_assistant_says(tmp_path):
    said = "{% generation %}{{ m.content }}{% endgeneration %};"
    built = gpt2_files(tmp_path, chat_template=f"{{% for m in messages %}}{said}{{% endfor %}}")
    assert built.chat([{"content": "a"}, {"content": "b"}]) == "a;b;"


def test_named_templates(tmp_path):
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    assert gpt2_files(tmp_path, chat_template=named).chat([]) == "d"


@pytest.mark.parametrize(
    "template, words",
    [
        (None, "has no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "chat template"),
        ("{{ messages.append(1) }}", "chat template"),  # a template cannot change its input
    ],
)
def test_chat_errors(tmp_path, template, words):
    with pytest.raises(UserError, match=words):
        gpt2_files(tmp_path, chat_template=template).chat([])


def test_damaged_file(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json is not a tokenizer"):
        tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tokenizer.ggml.model": "t5"}, "GGUF tokenizer 't5' is not known"),
        (
            {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "odd"},
            "GGUF pre-tokenizer 'odd' is not known",
        ),
    ],
)
def test_gguf_errors(changes, words):
    with pytest.raises(UserError, match=words):
        gguf_tokenizer.build(sentencepiece(**changes))


def test_gguf_without_tokenizer():
    assert gguf_tokenizer.build({}) is None
