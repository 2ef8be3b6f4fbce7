"""PiSSA: LoRA that starts at the weights' principal part (Meng et al. 2024, arXiv:2404.02948).

I inputs, O outputs, R rank.
"""

import dataclasses

import numpy as np

from lmlite import tree
from lmlite.adapt.lora import LoRA
from lmlite.adapt.method import owners
from lmlite.errors import UserError


@dataclasses.dataclass(frozen=True)
class PiSSA(LoRA):
    """LoRA whose A and B start at the R largest singular triples of W and whose base is the rest.

    Equal to the base at step 0 up to rounding (the rest takes the kernel's place and dtype).
    """

    outermost = False  # what another method computes with the kernel would see the rest

    def init(self, lm, key, classes):
        params = tree.flatten(super().init(lm, key, classes))
        base = tree.flatten(lm.params)
        for path in owners(tree.unflatten(params), "lora_a"):
            if (rank := self.size(path)[0]) > (most := min(base[f"{path}/kernel"].shape)):
                raise UserError(f"rank={rank} is above the {most} singular values of {path}")
        for path in owners(tree.unflatten(params), "lora_a"):
            kernel = base[f"{path}/kernel"]
            a, b = params[f"{path}/lora_a"], params[f"{path}/lora_b"] = self._start(path, kernel)
            rest = np.asarray(kernel, np.float32) - self.size(path)[1] * (a @ b)
            params[f"{path}/kernel"] = rest.astype(kernel.dtype)
        return tree.unflatten(params)

    def as_lora(self, lm, own):
        """LoRA of twice the rank on the pretrained weights that is the same model, and its leaves.

        s A B - s A0 B0 = s [A, A0] [B; -B0], A0 and B0 the start. own: the method's leaves by path.
        """
        base, leaves = tree.flatten(lm.params), {}
        for path in owners(tree.unflatten(own), "lora_a"):
            a, b = self._start(path, base[f"{path}/kernel"])
            leaves[f"{path}/lora_a"] = np.concatenate([own[f"{path}/lora_a"], a], axis=1)
            leaves[f"{path}/lora_b"] = np.concatenate([own[f"{path}/lora_b"], -b])
        grown = 2**0.5 if self.rank_stabilised else 2  # what keeps s as it is
        fields = dataclasses.asdict(self) | {
            "rank": 2 * self.rank,
            "alpha": grown * self.alpha,
            "ranks": tuple((pattern, 2 * rank) for pattern, rank in self.ranks),
            "alphas": tuple((pattern, grown * alpha) for pattern, alpha in self.alphas),
        }
        return LoRA(**fields), leaves

    def _start(self, path, kernel):
        """A [I, R] and B [R, O] with s A B the principal part of the kernel [I, O]."""
        rank, scale = self.size(path)
        u, s, vt = np.linalg.svd(np.asarray(kernel, np.float32), full_matrices=False)
        root = np.sqrt(s[:rank] / scale)
        return u[:, :rank] * root, root[:, None] * vt[:rank]
