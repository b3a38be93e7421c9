"""The document that a server gives of itself, for those who hold answers against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.openapi import Documentation

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT: dict[str, Any] = Documentation(installed_dialects(), requires_key=True).content
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a struct have no field but its own, so that an answer with one that isn't told of is found."""
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


_CLOSED = {name: _closed(schema) for name, schema in DOCUMENT["components"]["schemas"].items()}


def faults(schema: dict[str, Any], value: object, *, is_ours: bool = True) -> list[str]:
    """Say where the value isn't what the schema says; what is ours may hold no more than that either."""
    components = {**DOCUMENT["components"], "schemas": _CLOSED} if is_ours else DOCUMENT["components"]
    validator = Draft202012Validator({**schema, "components": components})
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]


def examples(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, example in content.get("application/json", {}).get("examples", {}).items():
        yield name, example["value"]


def address(path: str, operation: dict[str, Any]) -> str:
    """Put the examples of parameters into the path."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    return path


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to one of the components."""
    found: Any = DOCUMENT
    for step in part.get("$ref", "").split("/")[1:]:
        found = found[step]
    return found if "$ref" in part else part
