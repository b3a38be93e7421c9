"""Cases that differ from the library on purpose, and those that are wrong today."""

from __future__ import annotations

# Pattern of names, why. The manual has each decision.
DECIDED: list[tuple[str, str]] = [
    (
        "weights_prefix_model",
        "MLX reads weights with the prefix `model.`; the library leaves random ones in their place",
    ),
    ("quantized_no_method", "a quantization without a method is MLX's own; the library can't read it"),
    ("splade_untied_unmarked", "SpladePooling is enough of a mark for SPLADE; the library needs another"),
    ("tokens_without_padding", "one text needs no padding token; the library refuses to encode without one"),
]
# Cases that Torch has to serve, and what a refusal of others has to mention.
SERVED = ("rank_saved_by_6*", "rank_no_architectures", "labels_integers", "old_folder_of_the_transformer")
MENTIONED = {"t5_encoder": "t5", "format_model2vec": "model2vec", "saved_by_6_static": "static"}
_ALL = "torch openvino mlx"
_STEPS = "a refused step, without a way out"
_KEYS = "a key of sentence-transformers 6 isn't honored"
# Pattern of names, engines, why.
KNOWN: list[tuple[str, str, str]] = [
    ("albert_rank", "torch openvino", "pairs get no types from transformers 5's ALBERT tokenizer, and get them here"),
    ("rank_types_*", _ALL, "pairs get no types from transformers 5's tokenizer, and get them here"),
    ("convbert", "torch", "padding changes the numbers of the other texts in a batch"),
    ("mobilebert", "torch", "padding changes the numbers of the other texts in a batch"),
    ("xlnet_rank", "torch", "padding changes the numbers of the other texts in a batch"),
    ("funnel", "torch openvino", "padding changes the numbers of the other texts in a batch"),
    ("llama_longrope", _ALL, "one long text changes the positions of all texts in its batch"),
    ("llama_dynamic", _ALL, "one long text changes the positions of all texts in its batch"),
    ("lfm2_conv_only", _ALL, "packed texts change each other, and MLX needs a layer with attention"),
    ("lfm2*", "mlx", "layers of one type only crash on MLX"),
    ("lfm2*", "openvino", "compiled files differ"),
    ("gemma_bidirectional", _ALL, "attention to later tokens isn't honored"),
    ("*_without_steps", _ALL, "some decoders are pooled by the mean"),
    ("qwen3_no_head_dim", "mlx", "refused without a way out"),
    ("labels_mismatch", "mlx", "refused without a way out"),
    ("modernbert_irregular", "mlx", "layers of the two types in an irregular order aren't honored"),
    ("falcon_alibi", "openvino", "texts of over 500 tokens differ slightly"),
    ("mamba", "openvino", "an error of OpenVINO's isn't a refusal"),
    ("ibert_no_limit", _ALL, "texts over the positions crash"),
    ("nystromformer", "torch", "an error of the library's isn't a refusal"),
    ("roformer", "torch openvino", "its tokenizer needs a package that splits words, and is used without"),
    ("flaubert", _ALL, "refused without a way out"),
    ("rank_no_architectures", "torch openvino", "the head of a model without architectures isn't read"),
    ("rank_saved_by_6*", _ALL, _KEYS),
    ("rank_qwen2_padding_is_end", "mlx", "the last token isn't read where it is the padding token"),
    ("qwen2_3_labels", "mlx", "the last token isn't read where it is the padding token"),
    ("judge_*", _ALL, "a prompt over the limit isn't truncated as its makers do, and a new name hides the family"),
    ("qwen2_*", _ALL, "transformers builds another tokenizer from these files"),
    ("splade_untied_unmarked", "torch openvino", "a folder that sentence-transformers can't open is served"),
    ("splade_*", "openvino mlx", "a large sum of weights differs slightly"),
    ("pooling_without_prompt", _ALL, _STEPS),
    ("dense_*", _ALL, "refused without a way out, or PReLU's slope isn't read"),
    ("step_*", _ALL, _STEPS),
    ("saved_by_6*", _ALL, _KEYS),
    ("sbert_*", _ALL, "a key of sentence_bert_config.json isn't honored"),
    ("prompts_by_role", _ALL, "documents get the prompt called passage"),
    ("similarity_dot", _ALL, "the similarity is always the cosine"),
    ("tokens_*", _ALL, "one of the tokenizer's other files isn't honored"),
    ("weights_*", _ALL, "quantized weights without a mark are served"),
    ("format_*", _ALL, "refused without a way out"),
    ("quantized_*", _ALL, "refused without a way out, or served without a reference"),
    ("t5_encoder", _ALL, "refused for another reason than the true one"),
    ("saved_by_6_static", _ALL, "refused for another reason than the true one"),
    ("labels_integers", _ALL, "labels that are numbers are refused"),
    ("old_folder_of_the_transformer", _ALL, "the folder 0_Transformer isn't read"),
]
