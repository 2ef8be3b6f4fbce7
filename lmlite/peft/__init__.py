"""PEFT adapter directories, read and written: adapter_config.json and adapter_model.safetensors.

    adaptation = peft.read(directory, lm)
    adaptation.on(lm).logits(token_ids)  # or .folded(lm)
    peft.write(directory, adaptation, lm)

Tensors name modules as `transformers` does; the families' tables give ours. A format is a file
here with a reader and a writer, entered below under PEFT's name and under our method.
"""

import re
from pathlib import Path

from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.dora import DoRA
from lmlite.adapt.ia3 import IA3
from lmlite.adapt.lora import LoRA
from lmlite.adapt.p_tuning import PTuning
from lmlite.adapt.pissa import PiSSA
from lmlite.adapt.prefix import EncodedPrefix, PrefixTuning
from lmlite.adapt.prompt import PromptTuning
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.peft import directories, low_rank, rescaling, virtual

READERS = {
    "LORA": low_rank.read,
    "IA3": rescaling.read,
    "PROMPT_TUNING": virtual.read_prompt,
    "P_TUNING": virtual.read_prompt,
    "PREFIX_TUNING": virtual.read_prefix,
}
WRITERS = {
    LoRA: low_rank.write,
    DoRA: low_rank.write,
    PiSSA: low_rank.write,
    IA3: rescaling.write,
    PromptTuning: virtual.write_prompt,
    PTuning: virtual.write_encoded_prompt,
    PrefixTuning: virtual.write_prefix,
    EncodedPrefix: virtual.write_prefix,
}


def read(directory: str | Path, lm: LM) -> Adaptation:
    """The adapter in `directory` for the model `lm`, its parameters in float32.

    Which layers it adapts is told by its tensors, however its config says it (names, a regex,
    'all-linear'). A head that `write` left beside the adapter comes with it. Raises UserError for a
    directory that is none, a kind of adapter lmlite has not, and tensors that do not fit the model.
    """
    config, tensors, head = directories.read(Path(directory).expanduser())
    kind = config.get("peft_type")
    if kind not in READERS:
        raise UserError(f"{directory}: peft_type={kind!r} is not supported; known: {[*READERS]}")
    directories.refuse(config)
    if not tensors:
        raise UserError(f"{directory} holds no tensors; save the adapter again")
    try:
        found = READERS[kind](config, tensors, lm)
    except (TypeError, ValueError, AttributeError, KeyError, re.error) as error:
        raise UserError(f"{directory}: a field of the config has no use: {error}") from error
    return Adaptation(found.method, found.params | head)


def write(directory: str | Path, adaptation: Adaptation, lm: LM) -> None:
    """Writes the adapter of the model `lm`, the base, in float32, replacing one that is there.

    A prompt's or prefix's encoder is left behind, as PEFT leaves it: what it writes is stored. A
    classification head goes to a file of its own, which PEFT does not read. Raises UserError for a
    method or a parameter that the format cannot hold.
    """
    method = type(adaptation.method)
    if method not in WRITERS:
        known = ", ".join(sorted(one.__name__ for one in WRITERS))
        raise UserError(
            f"PEFT has no format for method {method.__name__} (it has for {known}); if it folds, "
            "turn it into LoRA or merge it into the model"
        )
    own = dict(adaptation.params)
    head = {"probe": own.pop("probe")} if "probe" in own else {}
    config, tensors = WRITERS[method](Adaptation(adaptation.method, own), lm)
    directories.write(Path(directory).expanduser(), config, tensors, head, lm)


def load_adapter(lm: LM, directory: str | Path) -> LM:
    """`lm` adapted as the PEFT adapter in `directory` says; see `read`.

    `lm` stays as it is: keep it to switch adapters, adapt the result again to stack them.
    """
    return read(directory, lm).on(lm)
