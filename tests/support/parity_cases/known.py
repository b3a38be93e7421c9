"""Cases that differ from the library on purpose, and those that are wrong today."""

from __future__ import annotations

# Pattern of names, why. The manual has each decision.
DECIDED: list[tuple[str, str]] = []
_ALL = "torch openvino mlx"
# Pattern of names, engines, why.
KNOWN: list[tuple[str, str, str]] = [
    ("albert_rank", "torch openvino", "pairs get no types with transformers 5's ALBERT tokenizer"),
    ("rank_types_unnamed", _ALL, "pairs get no types with transformers 5's generic tokenizer"),
    ("rank_types_of_roberta_class", _ALL, "pairs get no types with RobertaTokenizer"),
    ("[cmx]*bert*", _ALL, "padding changes the numbers of the other texts in a batch"),
    ("xlnet*", _ALL, "padding changes the numbers of the other texts in a batch"),
    ("l*_longrope", _ALL, "one long text changes the positions of all texts in its batch"),
    ("lfm2_conv_only", _ALL, "packed texts leak into each other"),
    ("lfm2*", _ALL, "some layer types crash on MLX, and compiled files on OpenVINO"),
    ("*_over_positions", _ALL, "a limit over max_position_embeddings isn't honored"),
    ("llama_dynamic", _ALL, "a limit over max_position_embeddings isn't honored"),
    ("gemma_bidirectional", _ALL, "attention to later tokens isn't honored"),
    ("*_without_steps", _ALL, "some decoders are pooled by the mean"),
    ("*_no_head_dim", "mlx", "refused without a way out"),
    ("falcon_alibi", "openvino", "long texts differ slightly"),
    ("mamba*", "openvino", "an error of OpenVINO's isn't a refusal"),
    ("ibert_no_limit", _ALL, "texts over the positions crash"),
    ("nystromformer", _ALL, "an error of the library's isn't a refusal"),
    ("roformer", _ALL, "its tokenizer needs a package that splits words"),
    ("t5_encoder", _ALL, "refused for the wrong reason"),
    ("flaubert", _ALL, "refused without a way out"),
    ("rank_*", _ALL, "sentence-transformers 6's cross-encoders, and those without architectures, aren't read"),
    ("judge_*", _ALL, "the prompt isn't truncated as its makers do"),
    ("labels_integers", _ALL, "refused for the wrong reason"),
    ("qwen2_*", _ALL, "transformers builds another tokenizer from these files"),
    ("splade*", _ALL, "a folder that sentence-transformers can't open is served"),
    ("pooling_*", _ALL, "refused without a way out"),
    ("dense_*", _ALL, "refused without a way out, or a slope isn't read"),
    ("step_*", _ALL, "refused without a way out"),
    ("saved_*", _ALL, "keys of sentence-transformers 6 aren't honored"),
    ("sbert_*", _ALL, "keys of sentence_bert_config.json aren't honored"),
    ("prompts_by_role", _ALL, "documents get the prompt called passage"),
    ("similarity_dot", _ALL, "the similarity is always the cosine"),
    ("tokens_*", _ALL, "the tokenizer's other files aren't honored"),
    ("weights_*", _ALL, "quantized weights without a mark are served"),
    ("old_folder_*", _ALL, "an old layout isn't read"),
    ("format_*", _ALL, "refused without a way out"),
    ("quantized_*", _ALL, "refused without a way out, or served without a reference"),
]
