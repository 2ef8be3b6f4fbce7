"""What a decoder is, independent of where its weights came from: one frozen, hashable record."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a decoder-only transformer.

    The families differ only in these values: Llama, Mistral, Qwen, Gemma and GPT-2 share the
    modules of `decoder.py`. Sizes count elements; `query_scale` multiplies the query-key products;
    a soft cap of 0 and a window of 0 mean none.
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
    activation: str = "silu"  # a key of layers.ACTIVATIONS
    gated: bool = True
    position: str = "rope"  # 'rope' | 'learned'
    rope_base: float = 10000.0
    rope_scaling: tuple = ()  # sorted (key, value) pairs of Hugging Face's rope_scaling
    local_rope_base: float = 0.0  # base of the windowed layers; 0 means the same as rope_base
    window: int = 0
    window_layers: tuple[int, ...] = ()
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    query_scale: float = 0.0  # 0 means 1/sqrt(head_size)
    attn_soft_cap: float = 0.0
    final_soft_cap: float = 0.0
    embed_scale: float = 1.0
    tied: bool = True
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    family: str = "llama"
