"""What a model is, wherever its weights came from: one frozen, hashable record a role."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from lmlite.errors import UserError


@dataclass(frozen=True)
class StackConfig:
    """Sizes and switches of a stack of transformer blocks and its token table.

    The families differ only in these values: all of them share the modules of `blocks.py`. Sizes
    count elements; `query_scale` multiplies the query-key products; a soft cap of 0 and a window
    of 0 mean none.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    max_positions: int
    norm: str = "rms"  # 'rms' | 'layer'
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # Gemma stores scale - 1
    norm_first: bool = True  # False: BERT normalises each residual sum, and nothing at the end
    activation: str = "silu"  # a key of layers.ACTIVATIONS
    gated: bool = True
    causal: bool = True
    cross: bool = False  # each block reads another sequence as well
    position: str = "rope"  # 'rope' | 'learned' | 'relative'
    position_offset: int = 0  # rows of the table of learned positions before that of position 0
    rope_base: float = 10000.0
    rope_scaling: tuple = ()  # sorted (key, value) pairs of Hugging Face's rope_scaling
    local_rope_base: float = 0.0  # base of the windowed layers; 0 means the same as rope_base
    relative_buckets: int = 32
    relative_distance: int = 128  # from here on, all distances share a bucket
    window: int = 0
    window_layers: tuple[int, ...] = ()
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    query_scale: float = 0.0  # 0 means 1/sqrt(head_size)
    attn_soft_cap: float = 0.0
    embed_scale: float = 1.0
    embed_norm: bool = False
    tied: bool = True
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None


@dataclass(frozen=True)
class DecoderConfig(StackConfig):
    """A decoder-only language model: Llama, Mistral, Qwen, Gemma, GPT-2."""

    reads: ClassVar[str] = "last"  # the state of a text that a classifier reads
    final_soft_cap: float = 0.0
    family: str = "llama"


@dataclass(frozen=True)
class EncoderConfig(StackConfig):
    """A bidirectional encoder: BERT, DistilBERT, RoBERTa.

    types: token types, of which the first is used. masked_head, pooler, classified: whether the
    model has the head that predicts masked tokens, the layer over the first token's state, and a
    classifier of what that makes into `labels`.
    """

    reads: ClassVar[str] = "mean"  # of the token states: without training the first says little
    norm: str = "layer"
    norm_eps: float = 1e-12
    norm_first: bool = False
    activation: str = "gelu"
    gated: bool = False
    causal: bool = False
    position: str = "learned"
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    embed_norm: bool = True
    types: int = 0
    masked_head: bool = False
    pooler: bool = False
    pooler_activation: str = "tanh"
    classified: bool = False
    labels: tuple[str, ...] = ()
    family: str = "bert"

    def __post_init__(self):
        if self.classified and not self.pooler:
            raise UserError("a classifier of single tokens is not supported, only one of texts")


@dataclass(frozen=True)
class EncDecConfig(StackConfig):
    """An encoder-decoder: T5, BART. The inherited sizes are the decoder's.

    start_id: the decoder's first input. forced_id: the token that every text starts with, as the
    model was trained; generation is made to choose it first. scaled_head: final states are divided
    by sqrt(width). head_bias: logits have a bias.
    """

    reads: ClassVar[str] = "last"
    cross: bool = True
    encoder_layers: int = 0
    encoder_heads: int = 0
    encoder_hidden: int = 0
    start_id: int = 0
    forced_id: int | None = None
    scaled_head: bool = False
    head_bias: bool = False
    family: str = "t5"

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What stands before every answer: `start_id` and, if any, `forced_id`."""
        return (self.start_id,) if self.forced_id is None else (self.start_id, self.forced_id)

    @property
    def encoder(self) -> "EncDecConfig":
        """The encoder's stack."""
        return dataclasses.replace(
            self,
            layers=self.encoder_layers,
            heads=self.encoder_heads,
            kv_heads=self.encoder_heads,
            head_size=self.heads * self.head_size // self.encoder_heads,
            hidden=self.encoder_hidden,
            causal=False,
            cross=False,
        )


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent language model; `cell` is 'lstm' or 'gru'.

    width: of the states. embed_width: of the token table, which may be that of pretrained word
    vectors. A tied head needs both to be equal.
    """

    reads: ClassVar[str] = "last"
    causal: ClassVar[bool] = True
    cross: ClassVar[bool] = False
    gated: ClassVar[bool] = True
    max_positions: ClassVar[int] = 2**20  # a state has no end

    vocab_size: int
    width: int
    embed_width: int
    layers: int
    cell: str
    tied: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    family: str = "recurrent"

    def __post_init__(self):
        if self.cell not in ("lstm", "gru"):
            raise UserError(f"cell {self.cell!r} is unknown; known: lstm, gru")
        if self.tied and self.width != self.embed_width:
            raise UserError(
                f"a tied head needs hidden_size {self.width} and embedding_size {self.embed_width} "
                "to be equal; set tie_word_embeddings to false"
            )


ModelConfig = StackConfig | RecurrentConfig
