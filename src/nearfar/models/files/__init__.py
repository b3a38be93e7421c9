"""One checkpoint file format each: JSON, safetensors headers, tokenizers, chat templates."""
