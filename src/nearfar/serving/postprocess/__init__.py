"""Pure functions over vectors and logits: scores, pooling, quantization."""
