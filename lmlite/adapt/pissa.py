"""PiSSA: LoRA that starts at the weights' principal part (Meng et al. 2024, arXiv:2404.02948).

I inputs, O outputs, R rank.
"""

import dataclasses

import numpy as np

from lmlite import tree
from lmlite.adapt.lora import LoRA
from lmlite.adapt.method import owners


@dataclasses.dataclass(frozen=True)
class PiSSA(LoRA):
    """LoRA whose A and B start at the R largest singular triples of W and whose base is the rest.

    Equal to the base at step 0 up to rounding (the rest takes the kernel's place and dtype).
    """

    def init(self, lm, key, classes):
        params = tree.flatten(super().init(lm, key, classes))
        base = tree.flatten(lm.params)
        for path in owners(tree.unflatten(params), "lora_a"):
            kernel = base[f"{path}/kernel"]
            rank, scale = self.size(path)
            whole = np.asarray(kernel, np.float32)
            u, s, vt = np.linalg.svd(whole, full_matrices=False)
            root = np.sqrt(s[:rank] / scale)
            a, b = u[:, :rank] * root, root[:, None] * vt[:rank]
            params[f"{path}/lora_a"], params[f"{path}/lora_b"] = a, b
            params[f"{path}/kernel"] = (whole - scale * (a @ b)).astype(kernel.dtype)
        return tree.unflatten(params)
