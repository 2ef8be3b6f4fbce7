"""IA3: `ia3_l` is [O, 1] over a module's outputs, or [1, I] over the inputs of feed-forward ones.

I inputs, O outputs.
"""

import numpy as np

from lmlite import tree
from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.ia3 import IA3
from lmlite.errors import UserError
from lmlite.models.families import FAMILIES
from lmlite.models.lm import LM
from lmlite.peft.directories import stored
from lmlite.peft.modules import Layer, adapted, check, layers, leftover, targets

_L = "ia3_l"


def read(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`. Which side a vector scales is told by its shape."""
    own, outputs, inputs = {}, [], []
    for layer, parts in adapted(tensors, (_L,), lm):
        scale = parts[_L]
        if scale.shape[0] == 1 and scale.shape[1:] != (1,):
            check(layer, _L, scale, (1, layer.shapes[0][0]))
            own |= {f"{path}/ia3_in": scale[0] for path in layer.paths}
            inputs += layer.paths
        else:
            check(layer, _L, scale, (layer.outputs, 1))
            pairs = zip(layer.paths, layer.split(scale[:, 0]), strict=True)
            own |= {f"{path}/ia3_out": part for path, part in pairs}
            outputs += layer.paths
    method = IA3(outputs="|".join(outputs), inputs="|".join(inputs))
    return Adaptation(method, tree.unflatten(own))


def write(adaptation: Adaptation, lm: LM) -> tuple[dict, dict[str, np.ndarray]]:
    """See `lmlite.peft.write`."""
    own, tensors = tree.flatten(adaptation.params), {}
    outputs, inputs, used = [], [], set()
    for layer in layers(lm):
        out, into = ({p for p in layer.paths if f"{p}/ia3_{x}" in own} for x in ("out", "in"))
        if out and into:
            raise UserError(
                f"IA3 scales both sides of {layer.name}, and PEFT one of them; change the targets"
            )
        if out:
            tensors[stored(layer.name, _L)] = _over_outputs(layer, own)
            outputs.append(layer.name)
        elif into:
            tensors[stored(layer.name, _L)] = _over_inputs(layer, own)
            inputs.append(layer.name)
        used |= {f"{path}/ia3_out" for path in out} | {f"{path}/ia3_in" for path in into}
    leftover(own, used)
    chosen = targets(outputs + inputs, lm)
    forward = {name if name in chosen else name.rpartition(".")[2] for name in inputs}
    if forward & {name if name in chosen else name.rpartition(".")[2] for name in outputs}:
        chosen, forward = sorted(outputs + inputs), set(inputs)  # one ending, scaled on both sides
    config = {
        "peft_type": "IA3",
        "target_modules": chosen,
        "feedforward_modules": sorted(forward),
        "fan_in_fan_out": FAMILIES[lm.config.family].input_first,
        "modules_to_save": None,
    }
    return config, tensors


def _over_outputs(layer: Layer, own: dict) -> np.ndarray:
    pairs = zip(layer.paths, layer.shapes, strict=True)
    parts = [own.get(f"{path}/ia3_out", np.ones(shape[1])) for path, shape in pairs]
    return np.concatenate(parts)[:, None]


def _over_inputs(layer: Layer, own: dict) -> np.ndarray:
    """Joined layers have one input, so they must be scaled alike."""
    parts = [own.get(f"{path}/ia3_in") for path in layer.paths]
    if any(part is None or not np.array_equal(part, parts[0]) for part in parts):
        raise UserError(f"IA3 scales the inputs of {layer.name} in parts; change the targets")
    return np.asarray(parts[0])[None]
