"""Every family is tuned by the default LoRA arm: its layers are found, and nothing else moves."""

import dataclasses
import re

import parity
import pytest
from tiny_lm import byte_tokenizer

import lmlite
from configs import common
from lmlite import arms, tree
from lmlite.arms.arm import Labelled, Log
from lmlite.data.task import Example, Task

CASES = parity.cases()
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "bert", "roberta",
            "distilbert", "t5", "t5_v1_1", "bart")  # fmt: skip
BLOCK = {"attn/q", "attn/k", "attn/v", "attn/o", "mlp/up", "mlp/down"}


def letters(n: int) -> Task:
    """The first letter decides; texts of the tokens 4 .. 39 of the byte tokenizer alone."""
    examples = tuple(
        Example(f"{i}", f"{'%&'[i % 2]}{'()*+,-'[i % 6 :]}:", ("A", "B"), i % 2, f"{i}")
        for i in range(n)
    )
    return Task("letters", ("A", "B"), examples, (), examples, target_delimiter="")


@pytest.mark.parametrize("case", FAMILIES)
def test_lora_tunes_it(tmp_path, case):
    parity.write(tmp_path, **CASES[case])
    lm = dataclasses.replace(lmlite.load(tmp_path), tokenizer=byte_tokenizer())
    spec = common.methods()["lora-all"].to_dict()
    spec["train"] |= dict(epochs=4, batch_size=4)
    spec["optim"] |= dict(learning_rate=1e-2)
    task, losses = letters(12), []
    log = Log(scalars=lambda step, values: losses.append(values["loss"]))
    predictor = arms.build(spec).fit(lm, task, Labelled(task.train, ()), 0, log)
    assert losses[-1] < 0.85 * losses[0]
    own = tree.flatten(predictor.adaptation.params)
    layers = {path.rpartition("/")[0] for path in own if not path.startswith("probe/")}
    assert all(path.endswith(("/lora_a", "/lora_b")) or path.startswith("probe/") for path in own)
    expected = {path.removesuffix("/kernel") for path in tree.flatten(lm.params)
                if re.fullmatch(r".*/(attn|cross|mlp)/\w+/kernel", path)}  # fmt: skip
    assert layers == expected
    assert BLOCK <= {path.split("layers_0/")[1] for path in layers if "layers_0/" in path}
    assert ("encoder/layers_0/attn/q" in layers) == lm.config.cross
