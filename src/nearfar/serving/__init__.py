"""Queues, batches and rules. Knows engines by their protocol only."""
