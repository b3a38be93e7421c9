"""The server's own OpenAPI document, and validation against it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.openapi.document import Documentation

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT: dict[str, Any] = Documentation(installed_dialects(), requires_key=True).content
# The only reasons to refuse what a schema allows. They depend on the model or on two fields together, which no schema
# can express.
ALLOWED_REFUSALS = re.compile(
    r"isn't supported here, and would change the numbers"  # fields of other protocols
    r"|takes no instruction|has no prompt|for this model(,| -)|exceeds this model's"
    r"|what this model can give|no token this model knows"
    r"|Unsupported task: '|leaves no room for text|dimensions is only for the task|late chunking needs a model"
    r"|this model has layers after pooling"
    # Without truncation.
    r"|maximum of \d+ tokens|at most \d+ tokens|too many tokens|tokens; at most \d+ are allowed"
    r"|is not a token id of|in this model's vocabulary|model '[^']*' can't"
    r"|is not (a|an) [\w -]+ model|not allowed to generate embeddings from this model|does not support (embed|rerank)"
    r"|is not served here; add it|^\{\"detail\":\"Model .* is not supported|Expected `str . array`, got `int`"
    r"|'dimensions' = \d+. Must be less|Input lengths must be|number of total max chunks"
    r"|document at index \d+ cannot be empty|this model has no chat template"
    # Two fields.
    r"|messages and input can't both be sent|contradict each other|only one of texts, inputs and images|Cannot set both"
)
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


def request_body(operation: dict[str, Any], body: object) -> dict[str, Any]:
    """Return the arguments of httpx that send a body, or a file where the operation takes a form."""
    form = operation.get("requestBody", {"content": {}})["content"].get("multipart/form-data")
    if form:
        fields = resolved(form["schema"])["properties"]
        (name,) = (name for name, field in fields.items() if field.get("format") == "binary")
        return {"files": {name: ("input.jsonl", b"{}")}, "data": {"purpose": "batch"} if "purpose" in fields else {}}
    return {"json": body}


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
