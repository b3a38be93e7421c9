"""Texts and pairs to token ids, cut to the model's limit."""
