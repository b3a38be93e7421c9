"""Converts texts and pairs to token ids, truncated to the model's limit."""
