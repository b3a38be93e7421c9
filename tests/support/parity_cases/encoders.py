"""Encoders: each family, and each option of those that MLX runs too."""

from __future__ import annotations

from typing import Any

from parity_cases.families import ENCODER
from parity_cases.parts import (
    Checkpoint,
    checkpoint,
    config_json,
    pooling,
    sbert,
    tokenizer_config,
)

_THREE = {0: "contradiction", 1: "entailment", 2: "neutral"}
_ESM = {"token_dropout": True, "mask_token_id": 4}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_IRREGULAR = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
_SCALED = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 160000.0},
    "sliding_attention": _ROTARY,
}

CASES: dict[str, Checkpoint] = {
    "albert": checkpoint("albert", sbert(max_seq_length=100)),
    "albert_rank": checkpoint("albert", labels=1),
    "bart": checkpoint(
        "bart",
        tokenizer="roberta",
        base={"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 512}
        | {
            f"{side}_{name}": size
            for side in ("encoder", "decoder")
            for name, size in (("ffn_dim", 48), ("attention_heads", 4))
        },
        steps=[pooling("mean")],
    ),
    "bert_2_labels": checkpoint("bert", labels=2),
    "bert_4_types": checkpoint("bert", type_vocab_size=4),
    "bert_causal": checkpoint("bert", is_decoder=True),
    "bert_eps": checkpoint("bert", layer_norm_eps=0.05),
    "bert_gelu_fast": checkpoint("bert", hidden_act="gelu_fast"),
    "bert_gelu_new": checkpoint("bert", hidden_act="gelu_new", layer_norm_eps=1e-3),
    "bert_generation": checkpoint("bert-generation"),
    "bert_multilabel": checkpoint("bert", labels=4, problem_type="multi_label_classification"),
    "bert_one_head": checkpoint("bert", num_attention_heads=1),
    "bert_rank_regression": checkpoint("bert", labels=1, problem_type="regression"),
    "bert_rank_types": checkpoint("bert", labels=1, type_vocab_size=2),
    "big_bird": checkpoint("big_bird", limit=1024, attention_type="block_sparse"),
    "camembert": checkpoint("camembert"),
    "canine": checkpoint(
        "canine",
        tokenizer="canine",
        base=ENCODER | {"num_hash_buckets": 256, "num_hash_functions": 4, "local_transformer_stride": 16},
    ),
    "clip_text": checkpoint(
        "clip_text_model", tokenizer="roberta", base=ENCODER | {"max_position_embeddings": 77}, limit=77
    ),
    "convbert": checkpoint("convbert"),
    "data2vec_text": checkpoint("data2vec-text"),
    "deberta": checkpoint("deberta", steps="cls"),
    "deberta_nli": checkpoint(
        "deberta-v2",
        labels=3,
        id2label=_THREE,
        label2id={label: at for at, label in _THREE.items()},
        norm_rel_ebd="layer_norm",
    ),
    "deberta_rank_conv": checkpoint(
        "deberta-v2", labels=1, norm_rel_ebd="layer_norm", conv_kernel_size=3, position_biased_input=False
    ),
    "distilroberta": checkpoint(
        "roberta", hidden_size=48, num_attention_heads=6, steps=[pooling("mean", word_embedding_dimension=48)]
    ),
    "electra_rank": checkpoint("electra", labels=1),
    "ernie": checkpoint("ernie", steps="cls"),
    # Masks in one text scale its embeddings; positions aren't counted from the padding id.
    "esm_rotary": checkpoint("esm", tokenizer="bert", base=ENCODER | {"position_embedding_type": "rotary", **_ESM}),
    "flaubert": checkpoint("flaubert"),
    "funnel": checkpoint("funnel"),
    "gte": checkpoint("gte", steps="cls"),
    "ibert_limit": checkpoint("ibert"),
    "ibert_no_limit": checkpoint("ibert", limit=None),
    "layoutlm": checkpoint("layoutlm", sbert(max_seq_length=256)),
    "longformer": checkpoint("longformer", limit=1024),
    "luke": checkpoint("luke"),
    "megatron_bert": checkpoint("megatron-bert"),
    "mobilebert": checkpoint("mobilebert", steps=[pooling("mean", word_embedding_dimension=64)]),
    "modernbert": checkpoint("modernbert", limit=1024),
    "modernbert_rank_mean": checkpoint("modernbert", labels=1, classifier_pooling="mean", limit=1024),
    "modernbert_3_labels_mean": checkpoint("modernbert", labels=3, classifier_pooling="mean"),
    "mpnet": checkpoint("mpnet", sbert(max_seq_length=384)),
    "nomic_bert": checkpoint("nomic_bert"),
    "nystromformer": checkpoint("nystromformer", limit=510),
    "rembert": checkpoint("rembert"),
    "roberta_3_labels": checkpoint("roberta", labels=3),
    "roberta_2_types": checkpoint("roberta", type_vocab_size=2),
    "roberta_eps": checkpoint("roberta", layer_norm_eps=0.05),
    "roberta_pad_0": checkpoint("roberta", pad_token_id=0),
    "roberta_prelayernorm": checkpoint("roberta-prelayernorm"),
    "roberta_rank": checkpoint("roberta", labels=1, layer_norm_eps=0.05),
    "roformer": checkpoint("roformer", tokenizer_config(tokenizer_class="RoFormerTokenizer")),
    "roformer_of_bert": checkpoint("roformer", rotary_value=True),
    "squeezebert": checkpoint("squeezebert"),
    "t5_encoder": checkpoint("t5", model_class="T5EncoderModel"),
    "xlm_roberta": checkpoint("xlm-roberta", sbert(max_seq_length=512)),
    "xlm_roberta_no_limit": checkpoint("xlm-roberta", limit=None, steps="cls"),
    "xlm_roberta_rank": checkpoint("xlm-roberta", labels=1),
    "xlm_roberta_xl": checkpoint("xlm-roberta-xl"),
    "xlnet_rank": checkpoint("xlnet", labels=1, summary_type="last"),
    "xmod": checkpoint("xmod"),
    # config.json as others write it
    "bert_is_causal": checkpoint("bert", config_json(is_causal=True)),
    "bert_return_dict_off": checkpoint("bert", config_json(return_dict=False)),
    "bert_unknown_activation": checkpoint("bert", config_json(hidden_act="supergelu")),
    "roberta_padding_null": checkpoint("roberta", config_json(pad_token_id=None)),
    "bert_added_auto_map": checkpoint(
        "bert", config_json(auto_map={"AutoModel": "modeling_x.XModel", "AutoConfig": "configuration_x.XConfig"})
    ),
    "bert_auto_map_of_its_tokenizer": checkpoint(
        "bert", tokenizer_config(auto_map={"AutoTokenizer": ["tokenization_x.X", None]}, tokenizer_class="XTokenizer")
    ),
    "bert_of_token_classification": checkpoint("bert", model_class="BertForTokenClassification"),
    "bert_pooling_config": checkpoint("bert", config_json(pooling_config={"pooling": "cls"}, pooling="cls")),
    "bert_positions_float": checkpoint("bert", config_json(max_position_embeddings=512.0)),
}
_MODERNBERT: dict[str, dict[str, Any]] = {
    "all_global": {"global_attn_every_n_layers": 1},
    "attention_bias": {"attention_bias": True},
    "eps": {"norm_eps": 0.05},
    "every_second": {"global_attn_every_n_layers": 2},
    "irregular": {"layer_types": _IRREGULAR},
    "mlp_bias": {"mlp_bias": True},
    "norm_bias": {"norm_bias": True},
    "odd_window": {"local_attention": 31},
    "scaled": {"rope_parameters": _SCALED},
    "theta": {"global_rope_theta": 5000.0, "local_rope_theta": 200.0},
    "rank_bias": {"labels": 1, "classifier_bias": True},
    "rank_cls": {"labels": 1, "classifier_pooling": "cls"},
    "rank_norm_bias": {"labels": 1, "norm_bias": True},
    "rank_relu": {"labels": 1, "classifier_activation": "relu"},
}
CASES |= {
    f"{family}_over_positions": checkpoint(family, sbert(max_seq_length=256), limit=1024, max_position_embeddings=64)
    for family in ("modernbert", "nomic_bert")
}
CASES |= {f"modernbert_{name}": checkpoint("modernbert", **options) for name, options in _MODERNBERT.items()}
