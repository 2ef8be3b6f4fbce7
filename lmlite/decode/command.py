"""What `experiments.generate` does: prompts to the terminal and to generations.jsonl."""

import time
from pathlib import Path

from ml_collections import ConfigDict

from lmlite.decode.generation import generate
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.models.load import load
from lmlite.peft import load_adapter
from lmlite.workdir import Records


def command(config: ConfigDict, workdir: Path) -> None:
    """Continues the prompts that have no row yet, `config.batch_size` at a time.

    Raises UserError where there are no prompts, or for what `generate` refuses.
    """
    prompts = read_prompts(config.prompts, config.prompts_file)
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size} must be at least 1")
    records = Records(workdir / "generations.jsonl")
    lm = load(config.model, config.dtype, config.quantize)
    lm = load_adapter(lm, config.adapter) if config.adapter else lm
    options = config.options.to_dict()
    done = [row["prompt"] for row in records.rows()]
    if done != prompts[: len(done)]:
        raise UserError(
            f"the prompts have changed since {records.path} was begun; name another --workdir or "
            "delete that file"
        )
    for start in range(len(done), len(prompts), config.batch_size):
        records.add(_batch(lm, prompts[start : start + config.batch_size], start, options))
    print(f"generations: {records.path}")


def read_prompts(text: str, file: str) -> list[str]:
    """The lines of `text`, or of the text file where one is named; blank ones are left out.

    Raises UserError for a file that cannot be read, and where no line is left.
    """
    if file:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"prompts_file={file} can't be read ({error}); name another") from error
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError(f"{f'prompts_file={file}' if file else 'prompts'} has no prompt; write one")
    return prompts


def _batch(lm: LM, prompts: list[str], first: int, options: dict) -> list[dict]:
    """Rows of generations.jsonl for one batch, shown on the terminal; one prompt alone, at once.

    first: the number of the first of them among all, by which each draws.
    """
    numbers = range(first, first + len(prompts))
    alone = len(prompts) == 1
    if alone:
        print(prompts[0], end="", flush=True)
    stream = (lambda _, piece: print(piece, end="", flush=True)) if alone else None
    start = time.perf_counter()
    settings = dict(stream=stream, batch_size=len(prompts), numbers=numbers)
    made = generate(lm, prompts, **options, **settings)
    seconds = round(time.perf_counter() - start, 3)
    for prompt, one in zip(prompts, made, strict=True):
        print("\n" if alone else f"{prompt}{one.text}\n")
    return [
        {"prompt": prompt, "text": one.text, "tokens": len(one.ids), "seconds": seconds}
        for prompt, one in zip(prompts, made, strict=True)
    ]
