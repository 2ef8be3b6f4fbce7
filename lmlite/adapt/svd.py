"""Any change of weights as LoRA: the best approximation of each kernel's change at a given rank.

I inputs, O outputs, R rank.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmlite import tree
from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.lora import LoRA
from lmlite.errors import UserError
from lmlite.models.lm import LM


@dataclasses.dataclass(frozen=True)
class Approximation:
    """A LoRA in place of another method, and how far it is from it.

    error: |what is missed| / |the whole change of the weights|, Frobenius. layers: the same for
    each layer. left_out: parameters that the method changed and that LoRA leaves alone (biases,
    norms, embeddings); `error` counts them as missed.
    """

    adaptation: Adaptation
    error: float
    layers: dict[str, float]
    left_out: tuple[str, ...]


def to_lora(adaptation: Adaptation, lm: LM, rank: int) -> Approximation:
    """The LoRA of at most `rank` that is nearest to a foldable method on the base model `lm`.

    By the singular vectors of each linear layer's change (Eckart and Young 1936), so it is exact
    where the change has no higher rank. Raises UserError for a method that does not fold, one that
    changes no linear layer, and a rank below 1.
    """
    if rank < 1:
        raise UserError(f"rank={rank} is below 1")
    changes = _changes(adaptation, lm)
    kernels = {path: delta for path, delta in changes.items() if path.endswith("/kernel")}
    if not kernels:
        raise UserError("the method changes no linear layer, so it cannot be turned into LoRA")
    own, layers, missed = {}, {}, {path: _square(delta) for path, delta in changes.items()}
    for path, delta in kernels.items():
        a, b = factors(delta, rank)
        missed[path] = _square(delta - a @ b)
        layer = path.removesuffix("/kernel")
        layers[layer] = float(np.sqrt(missed[path] / _square(delta)))
        own |= {f"{layer}/lora_a": np.float32(a), f"{layer}/lora_b": np.float32(b)}
    whole = sum(map(_square, changes.values()))
    return Approximation(
        Adaptation(_lora(own, rank), tree.unflatten(own) | _head(adaptation)),
        error=float(np.sqrt(sum(missed.values()) / whole)),
        layers=layers,
        left_out=tuple(path for path in changes if path not in kernels),
    )


def factors(delta: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A [I, R] and B [R, O] with A B the best approximation of delta float64[I, O].

    From the eigenvectors of the smaller Gram matrix, which takes a tenth of an SVD's time.
    """
    if delta.shape[0] > delta.shape[1]:
        b, a = factors(delta.T, rank)
        return a.T, b.T
    vectors = np.linalg.eigh(delta @ delta.T)[1][:, -rank:]
    return vectors, vectors.T @ delta


def _changes(adaptation: Adaptation, lm: LM) -> dict[str, np.ndarray]:
    """{path: change} of the base's parameters that change, as float64."""
    before = {path: leaf.astype(jnp.float32) for path, leaf in tree.flatten(lm.params).items()}
    wide = dataclasses.replace(lm, params=tree.unflatten(before))
    after = tree.flatten(adaptation.folded(wide).params)
    deltas = {path: np.float64(after[path]) - np.float64(leaf) for path, leaf in before.items()}
    return {path: delta for path, delta in deltas.items() if delta.any()}


def _lora(own: dict, rank: int) -> LoRA:
    """With s = 1 everywhere; a layer narrower than `rank` has a rank of its own."""
    sizes = {p.removesuffix("/lora_b"): len(x) for p, x in own.items() if p.endswith("/lora_b")}
    narrow = tuple((path, size) for path, size in sizes.items() if size < rank)
    alphas = tuple((path, float(size)) for path, size in narrow)
    return LoRA("|".join(sizes), rank, float(rank), ranks=narrow, alphas=alphas)


def _head(adaptation: Adaptation) -> dict:
    return {name: leaf for name, leaf in adaptation.params.items() if name == "probe"}


def _square(array: np.ndarray) -> float:
    return float(np.sum(np.square(array)))
