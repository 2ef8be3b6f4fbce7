"""The module of a configuration: `ROLES` is the one table of them."""

import flax.linen as nn

from lmlite.models import recurrent, stack
from lmlite.models.config import (
    DecoderConfig,
    EncDecConfig,
    EncoderConfig,
    ModelConfig,
    RecurrentConfig,
)
from lmlite.models.decoder import Decoder
from lmlite.models.encdec import EncDec
from lmlite.models.encoder import Encoder
from lmlite.models.recurrent import Recurrent, RecurrentCache
from lmlite.models.stack import Cache

ROLES = {
    DecoderConfig: Decoder,
    EncoderConfig: Encoder,
    EncDecConfig: EncDec,
    RecurrentConfig: Recurrent,
}


def build(config: ModelConfig, dtype: str = "float32") -> nn.Module:
    """The module of `config`, its matrix products in `dtype`."""
    return ROLES[type(config)](config, dtype)


def empty_cache(config: ModelConfig, batch: int, slots: int, dtype: str) -> Cache | RecurrentCache:
    """What generation keeps of `batch` rows of at most `slots` tokens, before the first."""
    if isinstance(config, RecurrentConfig):
        return recurrent.empty_cache(config, batch)
    return stack.empty_cache(config, batch, slots, dtype)
