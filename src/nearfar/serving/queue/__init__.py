"""One model's queue: admission, scheduling, batching, forward passes, health."""
