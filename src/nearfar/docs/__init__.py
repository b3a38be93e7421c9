"""The manual: its Markdown pages, read as text and rendered as HTML. No HTTP."""

from __future__ import annotations

from importlib.resources import files

# page → what it is about, in reading order
PAGES = {
    "api": "Routes, fields, headers and errors of every protocol",
    "models": "Engines, precision, tested architectures, prompts, conversion",
    "checkpoints": "What is done with each key of a checkpoint's files",
    "parity": "Checkpoints of every kind, compared with the libraries",
    "configuration": "Every setting and every command",
    "operations": "Run as a service, health, reload, restarts, overload",
    "tables": "Embed or rerank whole tables by one command",
    "observability": "Metrics, dashboard, alerts, logs, traces",
    "security": "Keys, scopes, limits, hosts, TLS",
    "migrating": "Switch from Ollama, Infinity, text-embeddings-inference and others",
    "recipes": "RAG, vector stores and apps, each with its code or its settings",
    "performance": "Measured speed, and how to measure it yourself",
    "contributing": "Set up, test, and find your way around the code",
}


def read_page(name: str) -> str:
    """Return the Markdown of one of PAGES."""
    return files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
