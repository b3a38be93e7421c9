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
# Pattern of names, engines, why.
KNOWN: list[tuple[str, str, str]] = [
    ("flaubert", "torch", "it is loaded as a decoder with a cache that its code can't use, and the forward fails"),
    ("nystromformer", "torch", "its attention takes no length of our probes, and the error isn't a refusal"),
    ("funnel", "openvino", "its converted model leaves the outputs empty, and the error isn't a refusal"),
    ("mamba*", "openvino", "its converted model leaves the outputs empty, and the error isn't a refusal"),
    ("lfm2_*_only", "mlx", "layers of one type alone aren't supported, and the error isn't a refusal"),
    ("qwen2_3_labels", "mlx", "the last token isn't read where it is the padding token"),
    ("qwen3_no_head_dim", "mlx", "the refusal has no way out"),
    ("labels_mismatch", "mlx", "the refusal has no way out"),
    ("quantized_*", "mlx", "the refusal has no way out"),
]
