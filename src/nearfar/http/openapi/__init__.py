"""The server's OpenAPI document, as JSON and as an HTML page.

Litestar can build such documents from handlers' signatures. It isn't used for that: here bodies are decoded by hand,
several dialects share paths, and errors differ by dialect.
"""
