"""Files and batches, as OpenAI's protocol has them, on a durable store. No HTTP."""
