"""Processes: a supervisor that owns the port, and the worker that serves on it."""
