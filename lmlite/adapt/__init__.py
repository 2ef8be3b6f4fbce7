"""Ways to tune a model. `METHODS` is the one table of them: name -> class of hyperparameters."""

from lmlite.adapt.adaptation import Adaptation
from lmlite.adapt.attachment import attach, join
from lmlite.adapt.bottleneck import Adapter, ParallelAdapter
from lmlite.adapt.diff_pruning import DiffPruning
from lmlite.adapt.dora import DoRA
from lmlite.adapt.ia3 import IA3
from lmlite.adapt.joined import Joined
from lmlite.adapt.lora import LoRA
from lmlite.adapt.masks import FishMask, SparseMask
from lmlite.adapt.method import Following, Method
from lmlite.adapt.p_tuning import PTuning
from lmlite.adapt.penalty import L2SP
from lmlite.adapt.pissa import PiSSA
from lmlite.adapt.prefix import EncodedPrefix, PrefixTuning
from lmlite.adapt.probe import LinearProbe, attach_headed, join_headed, randomly_headed
from lmlite.adapt.prompt import PromptTuning
from lmlite.adapt.select import (
    Bias,
    Full,
    GradualUnfreezing,
    LastLayers,
    Layers,
    Layerwise,
    Norms,
)
from lmlite.adapt.vera import VeRA

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "last_layers": LastLayers,
    "layers": Layers,
    "layerwise": Layerwise,
    "gradual_unfreezing": GradualUnfreezing,
    "norms": Norms,
    "bias": Bias,
    "linear_probe": LinearProbe,
    "lora": LoRA,
    "dora": DoRA,
    "pissa": PiSSA,
    "vera": VeRA,
    "ia3": IA3,
    "adapter": Adapter,
    "parallel_adapter": ParallelAdapter,
    "prompt_tuning": PromptTuning,
    "prefix_tuning": PrefixTuning,
    "encoded_prefix": EncodedPrefix,
    "p_tuning": PTuning,
    "sparse_mask": SparseMask,
    "fish_mask": FishMask,
    "diff_pruning": DiffPruning,
    "l2_sp": L2SP,
    "joined": Joined,
}

__all__ = [
    "METHODS",
    "Adaptation",
    "Following",
    "Method",
    "attach",
    "attach_headed",
    "join",
    "join_headed",
    "randomly_headed",
]
