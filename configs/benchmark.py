"""lmlite's speed and memory beside those of other tools, measured side by side in one run.

    python -m experiments.benchmark --workdir=/tmp/benchmark --config.peers_python=peers/bin/python

Without peers_python only lmlite's side is measured.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(
    task: str = "rotten_tomatoes", model: str = "package:smollm2-135m-instruct"
) -> ConfigDict:
    """`icl` scores `test_items` test items; `passages` scores the questions of passages with
    `least` or more of them; `texts` scores the answers of `test_items` items of a
    task without choices; `lora` trains on `examples` labelled ones, without a
    development set, at a constant learning rate; `many` trains `arms` runs of `lora`'s method;
    `states` tunes the last `layers` layers, with what enters them computed once and anew;
    `generate` continues as many test prompts as each of `batch_sizes` says.
    """
    return ConfigDict(
        dict(
            model=model,
            task=common.task(task),
            cases=("icl", "passages", "texts", "lora", "compile", "many", "states", "generate"),
            peers_python="",
            seed=0,
            icl=dict(shots=16, test_items=200, peer_batch_size=1),
            passages=dict(task=common.task("logiqa"), least=3),
            texts=dict(task=common.task("python_functions"), test_items=40),
            lora=dict(
                targets=r"layers_\d+/attn/(q|v)",
                rank=8,
                alpha=16.0,
                learning_rate=5e-4,
                clip_norm=1.0,
                examples=64,
                epochs=4,
                batch_size=8,
            ),
            many=dict(arms=8, examples=32, epochs=2, batch_size=4),
            states=dict(
                layers=2,
                learning_rate=1e-4,
                examples=64,
                dev_fraction=0.25,
                epochs=4,
                batch_size=8,
            ),
            generate=dict(new_tokens=64, batch_sizes=(1, 16)),
        )
    )
