"""LoRA, rsLoRA and DoRA. PEFT's A is [R, I] and its B [O, R]; ours are their transposes.

I inputs, O outputs, R rank.

Where `transformers` joins layers of ours in one module, PEFT has one A for all of them. Read, each
of ours gets it with its own columns of B. Written, layers with different As become one of their
ranks' sum: A side by side, B block by block.
"""

import re
from collections import Counter

import numpy as np

from lmlite import tree
from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.dora import DoRA, column_lengths
from lmlite.adapt.lora import LoRA
from lmlite.adapt.pissa import PiSSA
from lmlite.models.families import FAMILIES
from lmlite.models.lm import LM
from lmlite.peft.directories import stored
from lmlite.peft.modules import Layer, adapted, check, layers, leftover, targets

_A, _B, _M = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


def read(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    dora = bool(config.get("use_dora"))
    own, ranks, alphas = {}, {}, {}
    for layer, parts in adapted(tensors, (_A, _B, _M) if dora else (_A, _B), lm):
        a = parts.get(_A, np.empty((0, 0)))
        check(layer, _A, parts.get(_A), (a.shape[0], layer.shapes[0][0]))
        check(layer, _B, parts.get(_B), (layer.outputs, a.shape[0]))
        own |= _leaves(layer, "lora_b", layer.split(parts[_B].T))
        own |= _leaves(layer, "lora_a", [a.T] * len(layer.paths))
        if dora:
            magnitude = parts.get(_M) if parts.get(_M) is None else parts[_M].ravel()
            check(layer, _M, magnitude, (layer.outputs,))
            own |= _leaves(layer, "magnitude", layer.split(magnitude))
        alpha = _pattern(config.get("alpha_pattern"), layer.name, config.get("lora_alpha", 8))
        ranks |= dict.fromkeys(layer.paths, a.shape[0])
        alphas |= dict.fromkeys(layer.paths, float(alpha))
    rank, alpha = _usual(ranks), _usual(alphas)
    method = (DoRA if dora else LoRA)(
        targets="|".join(ranks),
        rank=rank,
        alpha=alpha,
        dropout=float(config.get("lora_dropout") or 0.0),
        rank_stabilised=bool(config.get("use_rslora")),
        ranks=tuple((path, r) for path, r in ranks.items() if r != rank),
        alphas=tuple((path, value) for path, value in alphas.items() if value != alpha),
    )
    return Adaptation(method, tree.unflatten(own))


def write(adaptation: Adaptation, lm: LM) -> tuple[dict, dict[str, np.ndarray]]:
    """See `lmlite.peft.write`."""
    method, own = adaptation.method, tree.flatten(adaptation.params)
    if isinstance(method, PiSSA):
        method, own = method.as_lora(lm, own)
    tensors, ranks, alphas, used = {}, {}, {}, set()
    for layer in layers(lm):
        held = [path for path in layer.paths if f"{path}/lora_a" in own]
        if not held:
            continue
        a, b, scale = _joined(layer, held, method, own)
        tensors[stored(layer.name, _A)], tensors[stored(layer.name, _B)] = a.T, b.T
        used |= {f"{path}/{leaf}" for path in held for leaf in ("lora_a", "lora_b")}
        if isinstance(method, DoRA):
            tensors[stored(layer.name, _M)] = _magnitudes(layer, own, lm)
            used |= {f"{path}/magnitude" for path in held}
        ranks[layer.name] = R = a.shape[1]
        alphas[layer.name] = round(scale * (R**0.5 if method.rank_stabilised else R), 9)
    leftover(own, used)
    return _config(method, ranks, alphas, lm), tensors


def _config(method: LoRA, ranks: dict[str, int], alphas: dict[str, float], lm: LM) -> dict:
    rank, alpha = _usual(ranks), _usual(alphas)
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": method.dropout,
        "bias": "none",
        "fan_in_fan_out": FAMILIES[lm.config.family].input_first,
        "use_rslora": method.rank_stabilised,
        "use_dora": isinstance(method, DoRA),
        "target_modules": targets([*ranks], lm),
        "modules_to_save": None,
        "layers_to_transform": None,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
    }


def _joined(layer: Layer, held: list[str], method: LoRA, own: dict):
    """A [I, R], B [R, O] and s of a module of which the layers `held` are adapted."""
    pairs = {path: [np.asarray(own[f"{path}/lora_{x}"]) for x in "ab"] for path in held}
    first, scale = pairs[held[0]][0], method.size(held[0])[1]
    shared = all(np.array_equal(first, a) for a, _ in pairs.values())
    a = first if shared else np.concatenate([a for a, _ in pairs.values()], axis=1)
    b, row = np.zeros((a.shape[1], layer.outputs), np.float32), 0
    for path, columns in zip(layer.paths, layer.split(b), strict=True):  # views of b
        if path in pairs:
            rows = slice(row, row + len(pairs[path][1]))
            columns[rows] = pairs[path][1] * (method.size(path)[1] / scale)
            row = 0 if shared else rows.stop
    return a, b, scale


def _magnitudes(layer: Layer, own: dict, lm: LM) -> np.ndarray:
    """m [O] of the module: a layer that is not adapted keeps the lengths of its columns."""
    base = tree.flatten(lm.params)

    def one(path):
        held = own.get(f"{path}/magnitude")
        return column_lengths(base[f"{path}/kernel"]) if held is None else held

    return np.concatenate([np.asarray(one(path)) for path in layer.paths])


def _leaves(layer: Layer, name: str, parts: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{path}/{name}": part for path, part in zip(layer.paths, parts, strict=True)}


def _pattern(patterns: dict | None, module: str, default):
    """The value of the first regex that matches the end of a module's name, as PEFT chooses it."""
    matching = (v for key, v in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, default)


def _usual(values: dict):
    return Counter(values.values()).most_common(1)[0][0]
