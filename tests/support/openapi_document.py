"""The server's own OpenAPI document, and validation against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.openapi.document import Documentation

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT: dict[str, Any] = Documentation(installed_dialects(), requires_key=True).content
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Forbid additional fields, so that an undocumented field of an answer is found."""
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


_CLOSED = {name: _closed(schema) for name, schema in DOCUMENT["components"]["schemas"].items()}


def faults(schema: dict[str, Any], value: object, *, is_ours: bool = True) -> list[str]:
    """Return where a value doesn't match a schema; the server's own values may have no additional fields."""
    components = {**DOCUMENT["components"], "schemas": _CLOSED} if is_ours else DOCUMENT["components"]
    validator = Draft202012Validator({**schema, "components": components})
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]


def examples(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, example in content.get("application/json", {}).get("examples", {}).items():
        yield name, example["value"]


def address(path: str, operation: dict[str, Any]) -> str:
    """Return the path with the examples of its parameters."""
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
