"""The module of a configuration: `ROLES` is the one table of them."""

import flax.linen as nn

from lmlite.models.config import DecoderConfig, EncDecConfig, EncoderConfig, StackConfig
from lmlite.models.decoder import Decoder
from lmlite.models.encdec import EncDec
from lmlite.models.encoder import Encoder

ROLES = {DecoderConfig: Decoder, EncoderConfig: Encoder, EncDecConfig: EncDec}


def build(config: StackConfig, dtype: str = "float32") -> nn.Module:
    """The module of `config`, its matrix products in `dtype`."""
    return ROLES[type(config)](config, dtype)
