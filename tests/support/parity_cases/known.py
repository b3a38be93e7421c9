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
# Names, and why they are left out with other versions than the pinned ones.
OTHER_VERSIONS = {
    "nomic_bert_over_positions": "before transformers 5.18 it has no token types beyond max_position_embeddings",
}
# Pattern of names, engines, why.
KNOWN: list[tuple[str, str, str]] = []
