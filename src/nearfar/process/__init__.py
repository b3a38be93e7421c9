"""Processes: the supervisor, its worker, signals and certificates."""
