"""Continuations of prompts by one model.

    python -m experiments.generate --workdir=/tmp/text --config.prompts="The capital of France is"

`prompts` holds one prompt a line, or `prompts_file` names a text file that does. Prompts are taken
`batch_size` at a time; one at a time, the text appears as it is made. `adapter` is a PEFT adapter
directory for the model. `quantize`: 'int8' or 'nf4' holds its linear layers in 8 or 4 bits.
"""

from ml_collections import ConfigDict


def get_config(model: str = "package:smollm2-135m-instruct") -> ConfigDict:
    """See the module's docstring; `options` are the arguments of `lmlite.decode.generate`."""
    return ConfigDict(
        dict(
            model=model,
            dtype="float32",
            quantize="",
            adapter="",
            prompts="The capital of France is",
            prompts_file="",
            batch_size=1,
            options=dict(
                max_new_tokens=64,
                temperature=0.0,
                top_k=0,
                top_p=1.0,
                min_p=0.0,
                repetition_penalty=1.0,
                beams=1,
                length_penalty=1.0,
                early_stopping=False,
                stop=(),
                seed=0,
                chat=False,
            ),
        )
    )


def sweep_temperature():
    """From greedy to as likely as the model says."""
    for temperature in (0.0, 0.5, 1.0):
        yield {"options.temperature": temperature}
