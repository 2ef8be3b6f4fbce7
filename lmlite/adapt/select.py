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
    """The blocks `layers` train, any set of them; block i has the label layer_i."""

    layers: tuple[int, ...] = (0,)

    def rules(self, lm):
        return (*((rf"layers_{i}/.*", f"layer_{i}") for i in self.layers), (".*", tree.FROZEN))


@dataclasses.dataclass(frozen=True)
class Layerwise(Method):
    """Every parameter trains; labels bottom (embeddings), layer_0, ... and top (norm and head).

    With a learning rate a label: layer-wise decay (Howard & Ruder 2018, arXiv:1801.06146).
    """

    def rules(self, lm):
        blocks = ((rf"layers_{i}/.*", f"layer_{i}") for i in range(lm.config.layers))
        return (("(embed|positions)/.*", "bottom"), *blocks, (".*", "top"))


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
