"""Methods that add nothing and choose which of the pretrained parameters train."""

import dataclasses

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.errors import UserError


@dataclasses.dataclass(frozen=True)
class Full(Method):
    """Every parameter trains."""

    def rules(self, lm):
        return ((".*", "full"),)


@dataclasses.dataclass(frozen=True)
class LastLayers(Method):
    """The top `layers` blocks train; what lies below is computed once."""

    layers: int = 2

    def rules(self, lm):
        total = lm.config.layers
        if not 1 <= self.layers <= total:
            raise UserError(f"layers={self.layers} is not between 1 and the model's {total}")
        chosen = "|".join(str(i) for i in range(total - self.layers, total))
        return ((rf"layers_({chosen})/.*", "layers"), (".*", tree.FROZEN))


@dataclasses.dataclass(frozen=True)
class Layers(Method):
    """The blocks `layers` train, any set of them, and of an encoder-decoder its encoder's blocks
    `encoder`; block i has the label layer_i, or encoder_i.
    """

    layers: tuple[int, ...] = (0,)
    encoder: tuple[int, ...] = ()

    def rules(self, lm):
        below = [(rf"encoder/layers_{i}/.*", f"encoder_{i}") for i in self.encoder]
        above = [(rf"layers_{i}/.*", f"layer_{i}") for i in self.layers]
        return (*below, *above, (".*", tree.FROZEN))


class _ByDepth(Method):
    """Every parameter trains, under the label of its depth: see `_depths`."""

    def rules(self, lm):
        rules = [("(embed|embed_norm|positions|types|relative)/.*", "bottom")]
        if lm.config.cross:
            rules += _blocks("encoder/layers", "encoder", lm.config.encoder_layers)
            rules += [("encoder/.*", "bottom")]
        return (*rules, *_blocks("layers", "layer", lm.config.layers), (".*", "top"))


def _blocks(path: str, label: str, count: int) -> list[tuple[str, str]]:
    return [(rf"{path}_{i}/.*", f"{label}_{i}") for i in range(count)]


def _depths(lm) -> list[str]:
    """The labels from the bottom (tables) through the blocks, an encoder's first, to the top."""
    encoder = [f"encoder_{i}" for i in range(lm.config.encoder_layers)] if lm.config.cross else []
    return ["bottom", *encoder, *(f"layer_{i}" for i in range(lm.config.layers)), "top"]


@dataclasses.dataclass(frozen=True)
class Layerwise(_ByDepth):
    """All trains, each depth `decay` times as fast as the one above.

    Discriminative fine-tuning: Howard & Ruder 2018, arXiv:1801.06146, section 3.2 (decay 1/2.6).
    """

    decay: float = 0.9

    def __post_init__(self):
        if not 0 < self.decay <= 1:
            raise UserError(f"decay={self.decay} must be above 0, at most 1")

    def groups(self, lm):
        depths = reversed(_depths(lm))
        return tuple((label, ("factor", self.decay**i)) for i, label in enumerate(depths))


@dataclasses.dataclass(frozen=True)
class GradualUnfreezing(_ByDepth):
    """All trains in the end; the top block and what is above it at once, each block below later.

    Howard & Ruder 2018, arXiv:1801.06146, section 3.3. There a block is added every epoch; a deep
    model has more blocks than a small data set needs epochs, so here they are added evenly, the
    tables last, over the fraction `until` of the updates. Adam's moments see gradients from the
    start, so that a block's first steps are no larger than its later ones.
    """

    until: float = 0.5

    def __post_init__(self):
        if not 0 <= self.until <= 1:
            raise UserError(f"until={self.until} must be between 0 and 1")

    def groups(self, lm):
        below = _depths(lm)[-2::-1]  # from the top block down
        each = self.until / (len(below) - 1)
        return tuple((label, ("starts", i * each)) for i, label in enumerate(below))


@dataclasses.dataclass(frozen=True)
class Norms(Method):
    """The scales (and biases) of every normalisation train."""

    def rules(self, lm):
        return ((r"(.*[/_])?norm/(scale|bias)", "norms"), (".*", tree.FROZEN))


@dataclasses.dataclass(frozen=True)
class Bias(Method):
    """Every bias trains: BitFit (Ben Zaken et al. 2021, arXiv:2106.10199)."""

    def rules(self, lm):
        if not any(path.endswith("/bias") for path in tree.flatten(lm.params)):
            raise UserError(
                f"method 'bias' has nothing to train: {lm.source or 'this model'} has no biases; "
                "use 'norms' or 'lora'"
            )
        return ((".*/bias", "bias"), (".*", tree.FROZEN))
