"""What a job goes through: limits, encoding to rows, and computing the result from the engine's output."""
