"""Ways to tune a model. `METHODS` is the one table of them: name -> class of hyperparameters."""

from lmlite.adapt.lora import LoRA
from lmlite.adapt.method import Method, attach
from lmlite.adapt.probe import LinearProbe
from lmlite.adapt.select import Bias, Full, LastLayers, Norms

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "last_layers": LastLayers,
    "norms": Norms,
    "bias": Bias,
    "linear_probe": LinearProbe,
    "lora": LoRA,
}

__all__ = ["METHODS", "Method", "attach"]
