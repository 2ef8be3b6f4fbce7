"""Encoders: BERT, RoBERTa (XLM-RoBERTa too) and DistilBERT."""

import dataclasses

from lmlite.models.config import EncoderConfig
from lmlite.models.families.family import Family

_BERT_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "activation": "hidden_act",
    "tied": "tie_word_embeddings",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}
_DISTILBERT_FIELDS = {
    "vocab_size": "vocab_size",
    "width": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "hidden": "hidden_dim",
    "max_positions": "max_position_embeddings",
    "activation": "activation",
    "tied": "tie_word_embeddings",
    "bos_id": "bos_token_id",
    "pad_id": "pad_token_id",
}

_BERT_DEFAULTS = {
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_DISTILBERT_DEFAULTS = {
    "activation": "gelu",
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def _bert_modules(base: str) -> dict[str, str]:
    at = f"{base}.encoder.layer.{{i}}"
    return {
        "embed": f"{base}.embeddings.word_embeddings",
        "positions": f"{base}.embeddings.position_embeddings",
        "types": f"{base}.embeddings.token_type_embeddings",
        "embed_norm": f"{base}.embeddings.LayerNorm",
        "layers_{i}/attn/q": f"{at}.attention.self.query",
        "layers_{i}/attn/k": f"{at}.attention.self.key",
        "layers_{i}/attn/v": f"{at}.attention.self.value",
        "layers_{i}/attn/o": f"{at}.attention.output.dense",
        "layers_{i}/attn_norm": f"{at}.attention.output.LayerNorm",
        "layers_{i}/mlp/up": f"{at}.intermediate.dense",
        "layers_{i}/mlp/down": f"{at}.output.dense",
        "layers_{i}/mlp_norm": f"{at}.output.LayerNorm",
        "pooler": f"{base}.pooler.dense",
    }


_DISTILBERT_MODULES = {
    "embed": "distilbert.embeddings.word_embeddings",
    "positions": "distilbert.embeddings.position_embeddings",
    "embed_norm": "distilbert.embeddings.LayerNorm",
    "layers_{i}/attn/q": "distilbert.transformer.layer.{i}.attention.q_lin",
    "layers_{i}/attn/k": "distilbert.transformer.layer.{i}.attention.k_lin",
    "layers_{i}/attn/v": "distilbert.transformer.layer.{i}.attention.v_lin",
    "layers_{i}/attn/o": "distilbert.transformer.layer.{i}.attention.out_lin",
    "layers_{i}/attn_norm": "distilbert.transformer.layer.{i}.sa_layer_norm",
    "layers_{i}/mlp/up": "distilbert.transformer.layer.{i}.ffn.lin1",
    "layers_{i}/mlp/down": "distilbert.transformer.layer.{i}.ffn.lin2",
    "layers_{i}/mlp_norm": "distilbert.transformer.layer.{i}.output_layer_norm",
    "masked/dense": "vocab_transform",
    "masked/norm": "vocab_layer_norm",
    "masked/bias": "vocab_projector.bias",
    "head": "vocab_projector",
    "pooler": "pre_classifier",
    "classifier": "classifier",
}


def _labels(raw: dict) -> dict[str, tuple[str, ...]]:
    names = raw.get("id2label") or {i: f"LABEL_{i}" for i in range(raw.get("num_labels") or 2)}
    return {"labels": tuple(names[key] for key in sorted(names, key=int))}


def _label_words(config: EncoderConfig) -> dict[str, dict]:
    return {
        "id2label": {str(i): name for i, name in enumerate(config.labels)},
        "label2id": {name: i for i, name in enumerate(config.labels)},
    }


def _roberta_positions(raw: dict) -> dict:
    """The rows of its table up to that of the padding token are not used."""
    offset = raw["pad_token_id"] + 1
    return _labels(raw) | {
        "position_offset": offset,
        "max_positions": raw["max_position_embeddings"] - offset,
    }


def _roberta_rows(config: EncoderConfig) -> dict:
    return _label_words(config) | {
        "max_position_embeddings": config.max_positions + config.position_offset
    }


ENCODERS = {
    "bert": Family(
        "BertForMaskedLM",
        headless="BertModel",
        base="bert.",
        config=EncoderConfig,
        defaults=_BERT_DEFAULTS,
        fields=_BERT_FIELDS,
        derive=_labels,
        words=_label_words,
        modules=_bert_modules("bert")
        | {
            "masked/dense": "cls.predictions.transform.dense",
            "masked/norm": "cls.predictions.transform.LayerNorm",
            "masked/bias": "cls.predictions.bias",
            "head": "cls.predictions.decoder",
            "classifier": "classifier",
        },
        presence={
            "cls.predictions.transform.dense.weight": {"masked_head": True},
            "pooler.dense.weight": {"pooler": True},
            "classifier.weight": {"classified": True},
        },
        unused=r"cls\.seq_relationship\..*|embeddings\.position_ids",
    ),
    "roberta": Family(
        "RobertaForMaskedLM",
        headless="RobertaModel",
        base="roberta.",
        config=EncoderConfig,
        defaults=_BERT_DEFAULTS | {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
        fields=_BERT_FIELDS,
        derive=_roberta_positions,
        words=_roberta_rows,
        modules=_bert_modules("roberta")
        | {
            "masked/dense": "lm_head.dense",
            "masked/norm": "lm_head.layer_norm",
            "masked/bias": "lm_head.bias",
            "head": "lm_head.decoder",
        },
        classified={"pooler": "classifier.dense", "classifier": "classifier.out_proj"},
        presence={
            "lm_head.dense.weight": {"masked_head": True},
            "pooler.dense.weight": {"pooler": True},
            "classifier.out_proj.weight": {"classified": True, "pooler": True},
        },
        unused=r"embeddings\.position_ids",
    ),
    "distilbert": Family(
        "DistilBertForMaskedLM",
        headless="DistilBertModel",
        base="distilbert.",
        config=EncoderConfig,
        defaults=_DISTILBERT_DEFAULTS,
        fields=_DISTILBERT_FIELDS,
        fixed={"pooler_activation": "relu"},
        derive=_labels,
        words=_label_words,
        modules=_DISTILBERT_MODULES,
        presence={
            "vocab_transform.weight": {"masked_head": True},
            "classifier.weight": {"classified": True, "pooler": True},
        },
    ),
}
ENCODERS["xlm-roberta"] = dataclasses.replace(
    ENCODERS["roberta"], architecture="XLMRobertaForMaskedLM", headless="XLMRobertaModel"
)
