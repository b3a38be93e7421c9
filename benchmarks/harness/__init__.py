"""What the benchmarks share: load generation, server processes, reference vectors, machine facts, tables and plots."""
