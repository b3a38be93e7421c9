"""Rewrites msgspec's messages about settings: the place, the path of the field, and what was expected, in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

_RENAMED = {  # keys of earlier versions
    "api_keys": "api_keys_file",
    "cache": "cache_dir",
    "deadline_s": "request_timeout_s",
    "drain_s": "drain_timeout_s",
    "forward_limit_s": "forward_timeout_s",
    "idle_s": "idle_timeout_s",
    "receive_s": "receive_timeout_s",
    "tls_cert": "tls_cert_file",
    "tls_key": "tls_key_file",
    "trace_share": "trace_sample_ratio",
}
# What to write instead, where msgspec would show a regular expression.
_EXPECTED = {
    "api_key": "expected letters, digits and ASCII punctuation without white space: a header can't carry anything else",
    "allowed_hosts": "expected a host name without scheme and port, such as embed.example.org or *.example.org",
    "cors_origins": "expected an origin, such as https://app.example.org, https://*.example.org or http://localhost:*",
    "hub_endpoint": "expected a URL that begins with http:// or https://",
    "memory_budget": "expected bytes, or a size such as 8GB or 500MiB",
    "otlp_endpoint": "expected a URL that begins with http:// or https://",
    "root_path": "expected a path such as /embeddings/model-a",
}
_TABLES = {
    "Expected `array`": "; write [[models]] above the keys of each model",
    "Expected `object`": '; write [[models]], and below it name = "…"',
}


def explain(place: str, message: str, *, known: Mapping[str, Collection[str]], choices: Mapping[str, object]) -> str:
    """Rewrite a message: ``FILE: models[0].dtype: invalid enum value 'x'; one of: …``.

    ``known`` has the keys of the server (``""``) and of a model (``models``), ``choices`` the values that fields take.
    """
    message, _, path = message.partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    if unknown := re.search(r"unknown field `(.+)`", message):
        keys = known["models" if where.startswith("models") else ""]
        where, message = (f"{where}.{unknown[1]}" if where else unknown[1]), unknown_key(unknown[1], keys)
    field = re.sub(r"\[.*?\]", "", where).rpartition(".")[2]
    if field in choices:
        message += f"; one of: {choices[field]}"
    if where.startswith("models") and message.startswith("Expected"):
        message += _TABLES.get(message.partition(", got")[0], "")
    if message.startswith("Expected `bool`"):
        message += "; true or false"
    if "matching regex" in message:
        message = _EXPECTED.get(field, message)
    return ": ".join(part for part in (place, where, message[:1].lower() + message[1:]) if part)


def unknown_key(key: str, known: Collection[str], prefix: str = "") -> str:
    """Return the message for an unknown key, with its new name or the most similar key if there is one."""
    key = key.lower().removeprefix("nearfar_")
    near = [_RENAMED.get(key, ""), *get_close_matches(key, known, n=1, cutoff=0.6)]
    name = next((name for name in near if name in known), "")
    return f"unknown key; did you mean {prefix}{name.upper() if prefix else name}?" if name else "unknown key"
