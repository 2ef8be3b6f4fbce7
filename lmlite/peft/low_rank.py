"""LoRA, rsLoRA and DoRA. PEFT's A is [R, I] and its B [O, R]; ours are their transposes.

I inputs, O outputs, R rank.

Where `transformers` joins layers of ours in one module, PEFT has one A for all of them. Read, each
of ours gets it with its own columns of B. Written, layers with different As become one of their
ranks' sum: A side by side, B block by block.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lmlite import tree
from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.dora import DoRA, column_lengths
from lmlite.adapt.lora import LoRA
from lmlite.adapt.pissa import PiSSA
from lmlite.models.families import FAMILIES
from lmlite.models.lm import LM
from lmlite.peft.directories import stored
from lmlite.peft.modules import NAME, Layer, adapted, check, layers, leftover, targets

_A, _B, _M = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"


def read(config: dict, tensors: dict[str, np.ndarray], lm: LM) -> Adaptation:
    """See `lmlite.peft.read`."""
    dora = bool(config.get("use_dora"))
    own, ranks, alphas = {}, {}, {}
    for layer, parts in adapted(tensors, (_A, _B, _M) if dora else (_A, _B), lm):
        own |= _leaves(layer, parts, dora)
        names = (parts[NAME], layer.name)
        alpha = _pattern(config.get("alpha_pattern"), names, config.get("lora_alpha", 8))
        ranks |= dict.fromkeys(layer.paths, len(parts[_A]))
        alphas |= dict.fromkeys(layer.paths, float(alpha))
    return Adaptation(_method(config, ranks, alphas), tree.unflatten(own))


def _leaves(layer: Layer, parts: dict[str, np.ndarray], dora: bool) -> dict[str, np.ndarray]:
    """The leaves of our layers in the module."""
    rank = len(parts.get(_A, ()))
    check(layer, _A, parts.get(_A), (rank, layer.shapes[0][0]))
    check(layer, _B, parts.get(_B), (layer.outputs, rank))
    found = {f"{path}/lora_a": parts[_A].T for path in layer.paths}
    split = {"lora_b": parts[_B].T}
    if dora:
        check(layer, _M, parts.get(_M), (layer.outputs,))
        split["magnitude"] = parts[_M]
    for name, whole in split.items():
        pairs = zip(layer.paths, layer.split(whole), strict=True)
        found |= {f"{path}/{name}": part for path, part in pairs}
    return found


def _method(config: dict, ranks: dict[str, int], alphas: dict[str, float]) -> LoRA:
    rank, alpha = _usual(ranks), _usual(alphas)
    return (DoRA if config.get("use_dora") else LoRA)(
        targets="|".join(ranks),
        rank=rank,
        alpha=alpha,
        dropout=float(config.get("lora_dropout") or 0.0),
        rank_stabilised=bool(config.get("use_rslora")),
        ranks=tuple((path, r) for path, r in ranks.items() if r != rank),
        alphas=tuple((path, value) for path, value in alphas.items() if value != alpha),
    )


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


def _pattern(patterns: dict | None, names: Sequence[str], default):
    """The value of the first regex that matches the end of a module's name, as PEFT chooses it.

    names: the adapter's, and ours where the base was loaded without what stands around it.
    """
    for key, value in (patterns or {}).items():
        if any(re.match(rf"(.*\.)?({key})$", name) for name in names):
            return value
    return default


def _usual(values: dict):
    return Counter(values.values()).most_common(1)[0][0]
