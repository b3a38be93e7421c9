"""tokenizer.json: its limits, how it is opened, and what transformers makes of it."""
