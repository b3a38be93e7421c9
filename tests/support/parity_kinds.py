"""Kinds of wrong numbers that were fixed, each with the checkpoints that show it and its like."""

from __future__ import annotations

from fnmatch import fnmatchcase

from parity_cases import CASES

# What was wrong → patterns of the names of cases.
_KINDS = {
    "a chat template for texts or pairs": "saved_by_6_with_chat *_of_chat rank_logit_score_*",
    "options for the library's loaders in `sentence_bert_config.json`": "sbert_tokenizer_args_* sbert_model_args",
    "vectors or weights cut after pooling": "*truncate_dim*",
    "long texts that lose their start": "*_left_bert *_left_llama *_left_by_6 *truncated_left *_args_left",
    "a text that ends in the padding token, or a model without one": "rank_qwen2_padding* rank_llama_no_padding_id",
    "two sets of weights in one folder": "weights_shards* weights_twice",
    "texts of a batch that change each other": "convbert mobilebert xlnet_rank lfm2_conv_only llama_longrope",
    "masks by direction": "*_bidirectional* *_not_causal *_is_causal bert_causal",
    "classifiers without a mark, or with a head that has no place": "rank_no_arch* rank_unmarked_* weights_head_*",
    "LLM rerankers under other names": "judge_*",
    "scores by another similarity": "similarity_dot",
    "pooling of decoders without `modules.json`": "*_without_steps",
    "activations and layers after pooling": "dense_* step_*",
    "tokenizers with rules in their class": "roformer* tokens_japanese tokens_xlm_* tokens_sentencepiece_*",
    "limits over the positions": "*over_positions ibert_*",
    "rotary positions by length": "llama_dynamic* llama_l* llama_yarn *_old_*",
    "tokens that one file alone names": "tokens_added_* tokens_additional_* tokens_extra_* tokens_of_* tokens_split_*",
    "token types": "*_types*",
    "rounding within an architecture": "falcon_alibi weights_rounded_* weights_dtype_*",
    "quantized weights with no mark": "weights_*_unmarked quantized_*",
}


def kinds() -> dict[str, list[str]]:
    """Return the names of the cases of each kind, as in Markdown."""
    return {
        kind: [f"`{name}`" for name in CASES if any(fnmatchcase(name, pattern) for pattern in patterns.split())]
        for kind, patterns in _KINDS.items()
    }
