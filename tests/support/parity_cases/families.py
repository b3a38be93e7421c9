"""Families of transformers: the tokenizer and the configuration that each case of the family starts from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoints import HIDDEN, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from checkpoints import Words


class Family(NamedTuple):
    """A key of TOKENIZERS, and the configuration without its vocabulary."""

    tokenizer: str
    config: dict[str, Any]


_SIZE = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**_SIZE, "intermediate_size": 48, "max_position_embeddings": 512}
OFFSET = ENCODER | {"max_position_embeddings": 514, "type_vocab_size": 1}
DECODER = ENCODER | {"num_key_value_heads": 2, "max_position_embeddings": 1024}
WIDE = DECODER | {"head_dim": 8}
GPT2 = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": 1024}
GEMMA3: dict[str, Any] = WIDE | {"sliding_window": 32, "query_pre_attn_scalar": 8, "num_hidden_layers": 6}
GEMMA3 |= {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
LFM2: dict[str, Any] = DECODER | {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
LFM2 |= {"block_auto_adjust_ff_dim": False}
_MODERN = ENCODER | {"num_hidden_layers": 4, "local_attention": 32, "global_attn_every_n_layers": 3}
_DEBERTA = ENCODER | {"relative_attention": True, "type_vocab_size": 0, "pooler_hidden_size": HIDDEN}
_BLOOM = {"hidden_size": HIDDEN, "n_layer": 2, "n_head": 4}
_GPT_NEO = {"hidden_size": HIDDEN, "num_layers": 2, "num_heads": 4, "window_size": 16, "max_position_embeddings": 1024}
_MIXED: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
_EXPERTS = {"num_experts_per_tok": 2}

# By model_type. A decoder that isn't here starts from nothing, and one that needs no more than DECODER is in _DECODERS.
FAMILIES = {
    "albert": Family("albert", ENCODER | {"embedding_size": 16, "inner_group_num": 1}),
    "bert": Family("bert", ENCODER),
    "bert-generation": Family("xlm-roberta", ENCODER),
    "big_bird": Family(
        "xlm-roberta", ENCODER | {"block_size": 16, "num_random_blocks": 2, "max_position_embeddings": 1024}
    ),
    "camembert": Family("xlm-roberta", OFFSET),
    "convbert": Family("bert", ENCODER | {"embedding_size": HIDDEN, "head_ratio": 2, "conv_kernel_size": 3}),
    "data2vec-text": Family("roberta", OFFSET),
    "deberta": Family("deberta", _DEBERTA | {"pos_att_type": ["c2p", "p2c"], "position_biased_input": False}),
    "deberta-v2": Family(
        "deberta-v2", _DEBERTA | {"pos_att_type": ["p2c", "c2p"], "position_buckets": 32, "share_att_key": True}
    ),
    "electra": Family("bert", ENCODER | {"embedding_size": 16}),
    "ernie": Family("bert", ENCODER | {"use_task_id": True, "task_type_vocab_size": 3}),
    "flaubert": Family("bert", {"emb_dim": HIDDEN, "n_layers": 2, "n_heads": 4, "pad_index": 0, "pre_norm": True}),
    "funnel": Family(
        "funnel",
        {
            "model_class": "FunnelModel",
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "d_model": HIDDEN,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 48,
        },
    ),
    "gte": Family("xlm-roberta", ENCODER),
    "ibert": Family("roberta", OFFSET),
    "layoutlm": Family("bert", ENCODER),
    "longformer": Family("roberta", OFFSET | {"attention_window": [16, 16], "max_position_embeddings": 1026}),
    "luke": Family("roberta", OFFSET | {"entity_vocab_size": 10, "entity_emb_size": 8}),
    "megatron-bert": Family("bert", ENCODER),
    "mobilebert": Family(
        "bert",
        ENCODER | {"hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 32, "num_feedforward_networks": 2},
    ),
    "modernbert": Family("around", _MODERN),
    "mpnet": Family("mpnet", OFFSET),
    "nomic_bert": Family("bert", ENCODER),
    "nystromformer": Family("xlm-roberta", ENCODER | {"segment_means_seq_len": 64, "num_landmarks": 8}),
    "rembert": Family("xlm-roberta", ENCODER | {"input_embedding_size": 16, "output_embedding_size": 24}),
    "roberta": Family("roberta", OFFSET),
    "roberta-prelayernorm": Family("roberta", OFFSET),
    "roformer": Family("bert", ENCODER | {"embedding_size": HIDDEN}),
    "squeezebert": Family(
        "bert",
        ENCODER
        | {"embedding_size": HIDDEN, "q_groups": 2, "k_groups": 2, "v_groups": 2}
        | {"post_attention_groups": 1, "intermediate_groups": 2, "output_groups": 2},
    ),
    "t5": Family("t5", {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
    "xlm-roberta": Family("xlm-roberta", OFFSET),
    "xlm-roberta-xl": Family("xlm-roberta", OFFSET),
    "xlnet": Family("xlnet", {"d_model": HIDDEN, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    "xmod": Family("xlm-roberta", OFFSET | {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"}),
    # decoders
    "bloom": Family("start", _BLOOM),
    "codegen": Family("start", GPT2 | {"rotary_dim": 8}),
    "cohere2": Family("start", WIDE | _MIXED),
    "exaone4": Family("start", WIDE | _MIXED),
    "falcon": Family("start", _SIZE | {"alibi": False, "multi_query": True}),
    "gemma": Family("start", WIDE),
    "gemma2": Family("start", WIDE | {"sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}),
    "gemma3_text": Family("start", GEMMA3),
    "gpt2": Family("start", GPT2),
    "gpt_bigcode": Family("start", GPT2),
    "gpt_neo": Family("start", _GPT_NEO | {"attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": Family("start", DECODER | {"num_key_value_heads": None, "rotary_pct": 0.25}),
    "gpt_oss": Family("start", WIDE | _MIXED | _EXPERTS | {"num_local_experts": 4}),
    "gptj": Family("start", GPT2 | {"rotary_dim": 8}),
    "lfm2": Family("start", LFM2),
    "mamba": Family("start", {"hidden_size": HIDDEN, "num_hidden_layers": 2, "state_size": 8}),
    "ministral": Family("start", WIDE | _MIXED),
    "mixtral": Family("start", DECODER | _EXPERTS | {"num_local_experts": 4}),
    "modernbert-decoder": Family("start", DECODER | {"local_attention": 32}),
    "olmo3": Family("start", DECODER | _MIXED),
    "opt": Family("start", _SIZE | {"ffn_dim": 48, "max_position_embeddings": 1024, "word_embed_proj_dim": HIDDEN}),
    "qwen2": Family("qwen2", DECODER),
    "qwen2_moe": Family(
        "start",
        DECODER | _EXPERTS | {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    ),
    "rwkv": Family("start", {"hidden_size": HIDDEN, "num_hidden_layers": 2, "context_length": 512}),
    "xglm": Family("start", {"d_model": HIDDEN, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48}),
}
_DECODERS = (
    "cohere diffllama eurobert glm granite llama mistral nemotron olmo olmo2 phi qwen3 smollm3 stablelm starcoder2"
)
FAMILIES |= {family: Family("start", DECODER) for family in _DECODERS.split()}


def _pieces(specials: str) -> dict[str, int]:
    """Return WordPiece's vocabulary behind these special tokens."""
    known = json.loads(make_tokenizer("pieces").backend_tokenizer.to_str())["model"]["vocab"]
    plain = [piece for piece in known if not (piece.startswith("[") and len(piece) > 1)]
    return {piece: at for at, piece in enumerate([*specials.split(), *plain])}


def _merges(specials: str = "<s> <pad> </s> <unk>") -> dict[str, Any]:
    """Return byte-level BPE's vocabulary and merges, its first tokens named so."""
    model = json.loads(make_tokenizer("bytes").backend_tokenizer.to_str())["model"]
    named = dict(zip(("<s>", "<pad>", "</s>", "<unk>"), specials.split(), strict=True))
    vocabulary = {named.get(token, token): at for token, at in model["vocab"].items()}
    return {"vocab": vocabulary, "merges": [tuple(merge) for merge in model["merges"]]}


def unigrams(specials: str) -> list[tuple[str, float]]:
    """Return SentencePiece's pieces and scores behind these special tokens."""
    known = json.loads(make_tokenizer("unigrams").backend_tokenizer.to_str())["model"]["vocab"]
    return [(special, 0.0) for special in specials.split()] + [(piece, score) for piece, score in known[4:]]


def _of_class(name: str, **arguments: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**arguments)


def _plain(words: Words, side: str = "right") -> Callable[[], Any]:
    return lambda: make_tokenizer(words, side)


_XLMR = "<s> <pad> </s> <unk>"
_ENDS = "<|endoftext|> <|im_start|> <|im_end|> <|other|>"
TOKENIZERS: dict[str, Callable[[], Any]] = {
    # transformers' classes, which rebuild a tokenizer from its vocabulary
    "albert": lambda: _of_class(
        "AlbertTokenizer", vocab=unigrams("<pad> <unk> [CLS] [SEP] [MASK]"), do_lower_case=True
    ),
    "bert": lambda: _of_class("BertTokenizer", vocab=_pieces("[PAD] [UNK] [CLS] [SEP] [MASK]")),
    "bert-cased": lambda: _of_class(
        "BertTokenizer", vocab=_pieces("[PAD] [UNK] [CLS] [SEP] [MASK]"), do_lower_case=False
    ),
    "canine": lambda: _of_class("CanineTokenizer"),
    "deberta": lambda: _of_class("DebertaTokenizer", **_merges("[CLS] [PAD] [SEP] [UNK]")),
    "deberta-v2": lambda: _of_class(
        "DebertaV2Tokenizer", vocab=[*unigrams("[PAD] [CLS] [SEP] [UNK]"), ("[MASK]", 0.0)], unk_id=3
    ),
    "funnel": lambda: _of_class("FunnelTokenizer", vocab=_pieces("<pad> <unk> <cls> <sep> <mask> <s> </s>")),
    "gpt2": lambda: _of_class("GPT2Tokenizer", **_merges(_ENDS)),
    "mpnet": lambda: _of_class("MPNetTokenizer", vocab=_pieces("<s> <pad> </s> [UNK] <mask>")),
    "qwen2": lambda: _of_class("Qwen2Tokenizer", **_merges(_ENDS)),
    "qwen2-left": lambda: _of_class("Qwen2Tokenizer", padding_side="left", **_merges(_ENDS)),
    "roberta": lambda: _of_class("RobertaTokenizer", **_merges()),
    "roberta-space": lambda: _of_class("RobertaTokenizer", add_prefix_space=True, **_merges()),
    "t5": lambda: _of_class("T5Tokenizer", vocab=unigrams("<pad> </s> <unk>")),
    "xlm-roberta": lambda: _of_class("XLMRobertaTokenizer", vocab=[*unigrams(_XLMR), ("<mask>", 0.0)]),
    "xlnet": lambda: _of_class("XLNetTokenizer", vocab=unigrams("<unk> <s> </s> <cls> <sep> <pad> <mask> <eod> <eop>")),
    # tokenizer.json as it is
    "start": _plain("bytes-start"),
    "start-left": _plain("bytes-start", "left"),
    "around": _plain("bytes-roberta"),
    "end": _plain("bytes-end"),
    "neither": _plain("bytes"),
}
