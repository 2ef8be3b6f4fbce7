"""Linear layers as `transformers` names them, which joins some of ours (GPT-2's q, k and v).

I inputs, O outputs.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmlite.errors import UserError
from lmlite.models import hf, weights
from lmlite.models.families import FAMILIES
from lmlite.models.lm import LM

NAME = "name"


class Layer(NamedTuple):
    """A module of `transformers`: its name and, for each of our layers in it, its path and [I, O].

    Joined layers share their inputs and stand side by side along the outputs.
    """

    name: str
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def outputs(self) -> int:
        """O of the joined layers together."""
        return sum(shape[1] for shape in self.shapes)

    def split(self, array: np.ndarray) -> list[np.ndarray]:
        """The parts [..., O] of our layers in [..., O] of the module."""
        return np.split(array, np.cumsum([shape[1] for shape in self.shapes])[:-1], axis=-1)


def layers(lm: LM) -> list[Layer]:
    """Every linear layer of the base model."""
    sizes = weights.shapes(lm.module)
    kernels = [path for path in sizes if path.endswith("/kernel")]
    named = hf.tensor_names(lm.module.config, kernels)
    return [
        Layer(
            name.removesuffix(".weight"),
            tuple(path.removesuffix("/kernel") for path in paths),
            tuple(sizes[path] for path in paths),
        )
        for name, paths in named.items()
    ]


def adapted(
    tensors: dict[str, np.ndarray], parts: Sequence[str], lm: LM
) -> Iterator[tuple[Layer, dict[str, Any]]]:
    """The layers that `tensors` adapt, with what each has of `parts`, and NAME: the adapter's own.

    Raises UserError for a tensor that is none of `parts`, or of a module that is no linear layer of
    the model.
    """
    known = {hf.bare_name(f"{layer.name}.weight"): layer for layer in layers(lm)}
    found: dict[Layer, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".base_layer.weight"):
            continue  # of a head: PEFT adds the base's own weights, which do not train
        part = next((part for part in parts if name.endswith(f".{part}")), None)
        if part is None:
            raise UserError(
                f"tensor {name!r} is none of {', '.join(parts)}; lmlite reads no other parts of "
                "such an adapter"
            )
        module = name.removesuffix(f".{part}")
        layer = known.get(hf.bare_name(f"{module}.weight"))
        if layer is None:
            raise UserError(
                f"the adapter changes {module!r}, which is no linear layer of this "
                f"{lm.config.family} model; it was made for another model, or for an embedding"
            )
        found.setdefault(layer, {NAME: module})[part] = tensor
    yield from found.items()


def check(layer: Layer, part: str, array: np.ndarray | None, shape: tuple[int, ...]) -> None:
    """Raises UserError where the tensor is missing or not of `shape`."""
    if array is None:
        raise UserError(f"tensor '{layer.name}.{part}' is missing from the adapter; save it again")
    if array.shape != shape:
        raise UserError(
            f"tensor '{layer.name}.{part}' has shape {list(array.shape)}, but the model asks for "
            f"{list(shape)}; the adapter was made for another model"
        )


def targets(chosen: Sequence[str], lm: LM) -> list[str]:
    """`chosen` module names as the shortest list that names no other module.

    Last components where these are unambiguous ('q_proj'), else the names.
    """
    table = FAMILIES[lm.config.family].modules.values()
    modules = {layer.name for layer in layers(lm)} | {name for name in table if "{i}" not in name}
    ends = {name.rpartition(".")[2] for name in chosen}
    clear = not any(name.endswith(tuple(ends)) for name in modules - set(chosen))
    return sorted(ends if clear else chosen)


def leftover(own: dict, used: set[str]) -> None:
    """Raises UserError where a parameter of the method is not in `used`."""
    if rest := sorted(own.keys() - used):
        raise UserError(
            f"parameter {rest[0]!r} has no place in a PEFT adapter; merge the method into the model"
        )
