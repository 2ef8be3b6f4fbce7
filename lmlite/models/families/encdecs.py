"""Encoder-decoders: T5 (v1.0, and v1.1 with Flan) and BART."""

from lmlite.errors import UserError
from lmlite.models.config import EncDecConfig
from lmlite.models.families.family import Family

_T5_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "d_model",
    "heads": "num_heads",
    "head_size": "d_kv",
    "hidden": "d_ff",
    "encoder_layers": "num_layers",
    "encoder_heads": "num_heads",
    "encoder_hidden": "d_ff",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_distance": "relative_attention_max_distance",
    "norm_eps": "layer_norm_epsilon",
    "start_id": "decoder_start_token_id",
    "forced_id": "forced_bos_token_id",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}
_BART_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "d_model",
    "layers": "decoder_layers",
    "heads": "decoder_attention_heads",
    "hidden": "decoder_ffn_dim",
    "encoder_layers": "encoder_layers",
    "encoder_heads": "encoder_attention_heads",
    "encoder_hidden": "encoder_ffn_dim",
    "max_positions": "max_position_embeddings",
    "activation": "activation_function",
    "tied": "tie_word_embeddings",
    "start_id": "decoder_start_token_id",
    "forced_id": "forced_bos_token_id",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}

_T5_DEFAULTS = {
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
    "forced_bos_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_BART_DEFAULTS = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "tie_word_embeddings": True,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_OLD_FORCED = "force_bos_token_to_be_generated"  # for forced_bos_token_id=bos_token_id
_TABLES = tuple(f"{side}coder.embed_tokens.weight" for side in ("en", "de"))
_T5_MODULES = {
    "embed": "shared",
    "encoder/relative": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "encoder/layers_{i}/attn_norm": "encoder.block.{i}.layer.0.layer_norm",
    "encoder/layers_{i}/attn/q": "encoder.block.{i}.layer.0.SelfAttention.q",
    "encoder/layers_{i}/attn/k": "encoder.block.{i}.layer.0.SelfAttention.k",
    "encoder/layers_{i}/attn/v": "encoder.block.{i}.layer.0.SelfAttention.v",
    "encoder/layers_{i}/attn/o": "encoder.block.{i}.layer.0.SelfAttention.o",
    "encoder/layers_{i}/mlp_norm": "encoder.block.{i}.layer.1.layer_norm",
    "encoder/layers_{i}/mlp/gate": "encoder.block.{i}.layer.1.DenseReluDense.wi_0",
    "encoder/layers_{i}/mlp/up": "encoder.block.{i}.layer.1.DenseReluDense.wi_1",
    "encoder/layers_{i}/mlp/down": "encoder.block.{i}.layer.1.DenseReluDense.wo",
    "encoder/norm": "encoder.final_layer_norm",
    "relative": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "layers_{i}/attn_norm": "decoder.block.{i}.layer.0.layer_norm",
    "layers_{i}/attn/q": "decoder.block.{i}.layer.0.SelfAttention.q",
    "layers_{i}/attn/k": "decoder.block.{i}.layer.0.SelfAttention.k",
    "layers_{i}/attn/v": "decoder.block.{i}.layer.0.SelfAttention.v",
    "layers_{i}/attn/o": "decoder.block.{i}.layer.0.SelfAttention.o",
    "layers_{i}/cross_norm": "decoder.block.{i}.layer.1.layer_norm",
    "layers_{i}/cross/q": "decoder.block.{i}.layer.1.EncDecAttention.q",
    "layers_{i}/cross/k": "decoder.block.{i}.layer.1.EncDecAttention.k",
    "layers_{i}/cross/v": "decoder.block.{i}.layer.1.EncDecAttention.v",
    "layers_{i}/cross/o": "decoder.block.{i}.layer.1.EncDecAttention.o",
    "layers_{i}/mlp_norm": "decoder.block.{i}.layer.2.layer_norm",
    "layers_{i}/mlp/gate": "decoder.block.{i}.layer.2.DenseReluDense.wi_0",
    "layers_{i}/mlp/up": "decoder.block.{i}.layer.2.DenseReluDense.wi_1",
    "layers_{i}/mlp/down": "decoder.block.{i}.layer.2.DenseReluDense.wo",
    "norm": "decoder.final_layer_norm",
    "head": "lm_head",
}


def _bart_modules() -> dict[str, str]:
    block = {
        "attn/q": "self_attn.q_proj",
        "attn/k": "self_attn.k_proj",
        "attn/v": "self_attn.v_proj",
        "attn/o": "self_attn.out_proj",
        "attn_norm": "self_attn_layer_norm",
        "mlp/up": "fc1",
        "mlp/down": "fc2",
        "mlp_norm": "final_layer_norm",
    }
    cross = {ours.replace("attn", "cross"): theirs.replace("self_attn", "encoder_attn")
             for ours, theirs in block.items() if "attn" in ours}  # fmt: skip
    modules = {"embed": "model.shared", "head": "lm_head", "head_bias": "final_logits_bias"}
    for ours, theirs in (("encoder/", "model.encoder"), ("", "model.decoder")):
        modules[f"{ours}positions"] = f"{theirs}.embed_positions"
        modules[f"{ours}embed_norm"] = f"{theirs}.layernorm_embedding"
        for name, stored in (block if ours else block | cross).items():
            modules[f"{ours}layers_{{i}}/{name}"] = f"{theirs}.layers.{{i}}.{stored}"
    return modules


def _derive_t5(raw: dict) -> dict:
    """v1.1 is told from v1.0 by not tying its tables; since transformers 5 by a key of its own."""
    kind = raw["feed_forward_proj"]
    scaled = raw.get("scale_decoder_outputs", raw["tie_word_embeddings"] is not False)
    return {
        "layers": raw["num_decoder_layers"] or raw["num_layers"],
        "gated": kind.startswith("gated-"),
        "activation": "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-"),
        "scaled_head": scaled,
    }


def _t5_words(config: EncDecConfig) -> dict:
    plain = "gelu" if config.gated else "gelu_new"
    kind = plain if config.activation == "gelu_tanh" else config.activation
    return {
        "num_decoder_layers": config.layers,
        "feed_forward_proj": f"gated-{kind}" if config.gated else kind,
        "tie_word_embeddings": config.scaled_head,
        "is_encoder_decoder": True,
    }


def _derive_bart(raw: dict) -> dict:
    if not raw["tie_word_embeddings"]:  # its encoder and decoder then have tables of their own
        raise UserError("config.json: tie_word_embeddings=False is not supported for bart models")
    forced = {"forced_id": raw["bos_token_id"]} if raw.get(_OLD_FORCED) else {}
    return {"embed_scale": raw["d_model"] ** 0.5 if raw["scale_embedding"] else 1.0} | forced


def _bart_words(config: EncDecConfig) -> dict:
    return {"scale_embedding": config.embed_scale != 1.0, "is_encoder_decoder": True}


ENCDECS = {
    "t5": Family(
        "T5ForConditionalGeneration",
        config=EncDecConfig,
        defaults=_T5_DEFAULTS,
        fields=_T5_FIELDS,
        fixed={
            "position": "relative",
            "query_scale": 1.0,
            "max_positions": 2**20,  # relative positions have no end
        },
        derive=_derive_t5,
        words=_t5_words,
        modules=_T5_MODULES,
        ungated={
            "encoder/layers_{i}/mlp/up": "encoder.block.{i}.layer.1.DenseReluDense.wi",
            "layers_{i}/mlp/up": "decoder.block.{i}.layer.2.DenseReluDense.wi",
        },
        presence={"lm_head.weight": {"tied": False}},
        copies=_TABLES,
        unused=r".*EncDecAttention\.relative_attention_bias\..*",
    ),
    "bart": Family(
        "BartForConditionalGeneration",
        config=EncDecConfig,
        defaults=_BART_DEFAULTS,
        fields=_BART_FIELDS,
        fixed={
            "norm": "layer",
            "norm_first": False,
            "gated": False,
            "position": "learned",
            "position_offset": 2,
            "embed_norm": True,
            "qkv_bias": True,
            "out_bias": True,
            "mlp_bias": True,
        },
        derive=_derive_bart,
        words=_bart_words,
        modules=_bart_modules(),
        presence={"final_logits_bias": {"head_bias": True}},
        copies=_TABLES,
        unties=False,
    ),
}
