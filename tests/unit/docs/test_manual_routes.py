"""The API page has every route, field, header, error and client, and README no others."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from manual import ROOT, codes, read, tables
from openapi_document import DOCUMENT, OPERATIONS

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import error_row
from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

# Heading → dialect.
DIALECTS = {
    "OpenAI": "openai",
    "Cohere": "cohere",
    "Jina": "jina",
    "Voyage": "voyage",
    "text-embeddings-inference": "tei",
    "vLLM and Infinity": "vllm",
    "Ollama": "ollama",
    "embed-rerank": "embed_rerank",
    "nearfar": "native",
}
HEADER = "| route | fields | notes |"
NO_ANSWER = {"RequestError", "ServingError"}  # roots of the tree, that nothing raises


def json_schema() -> dict[tuple[str, str, str], set[str]]:
    """Return the fields by dialect, method and path."""
    found: dict[tuple[str, str, str], set[str]] = {}
    sections = re.split(r"^### (.+)\n", read("api").partition("## Shared paths")[0], flags=re.MULTILINE)[1:]
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        for line in text.partition(f"{HEADER}\n")[2].splitlines()[1:]:
            if not line.startswith("|"):
                break
            routes, fields = line.split("|")[1:3]
            for route in codes(routes):
                method, _, path = route.partition(" ")
                found.setdefault((DIALECTS[heading], method.lower(), path), set()).update(codes(fields))
    return found


def served() -> dict[tuple[str, str, str], set[str]]:
    """Return the same from the server's own description; HEAD goes without saying."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for path, method in OPERATIONS:
        operation = DOCUMENT["paths"][path][method]
        query = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
        for dialect, schema in bodies(operation):
            if method != "head":
                found.setdefault((dialect, method, path), set()).update(properties(schema), query)
    return found


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each dialect of an operation with the schema of its body."""
    content = operation.get("requestBody", {"content": {"application/json": {"schema": {}}}})["content"]
    schema = next(iter(content.values()))["schema"]
    tags = operation["tags"]
    yield from zip(tags, schema["anyOf"] if len(tags) > 1 else [schema], strict=True)


def properties(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the fields of a body, of every form that it may have."""
    if "$ref" in schema:
        yield from DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]].get("properties", ())
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from properties(part)


def test_every_route_is_on_the_page_with_its_fields() -> None:
    page, server = json_schema(), served()

    assert server.keys() == page.keys()
    assert {} == {route: fields ^ page[route] for route, fields in server.items() if fields != page[route]}


def test_every_field_that_chooses_a_protocol_is_on_the_page() -> None:
    rows = tables("api", "| path | with one of these fields | answered as |")
    page = {
        (path, field, DIALECTS[protocol])
        for paths, fields, protocol in rows
        for path in codes(paths)
        for field in codes(fields)
    }

    claims = {
        (path, required, dialect)
        for path, method in OPERATIONS
        for dialect, schema in bodies(DOCUMENT["paths"][path][method])
        for part in schema.get("allOf", ())[1:]
        for claim in part.get("anyOf", ())
        for required in claim["required"]
    }

    assert claims == page


def test_readme_names_only_routes_that_exist() -> None:
    paths = [code for _, routes in tables("README", "| protocol | routes |") for code in codes(routes)]

    assert len(DIALECTS) == len(tables("README", "| protocol | routes |"))
    assert [] == [path for path in paths if path not in DOCUMENT["paths"]]


def test_every_response_header_is_on_the_page() -> None:
    page = {code for names, *_ in tables("api", "| header | where | meaning |") for code in codes(names)}

    headers = {
        header
        for path, method in OPERATIONS
        for answer in DOCUMENT["paths"][path][method]["responses"].values()
        for header in answer.get("headers", ())
    }

    assert headers | {"traceresponse"} == page


def test_every_class_of_error_is_on_the_page_with_its_status() -> None:
    page = {
        code: int(status) for names, status, _ in tables("api", "| class | status | when |") for code in codes(names)
    }
    [native] = [dialect for dialect in installed_dialects() if dialect.name == "native"]

    raised = [errors.RequestError, errors.ServingError]
    for kind in raised:
        raised += kind.__subclasses__()
    names = {kind.__name__: error_row(kind, native.errors).status for kind in raised if kind.__name__ not in NO_ANSWER}

    assert names == page


def test_every_tested_client_is_on_the_page() -> None:
    rows = tomllib.loads((ROOT / "tests/client_matrix/clients.toml").read_text(encoding="utf-8"))["client"]
    page = {
        (language, code)
        for language, names, _ in tables("api", "| language | package | versions |")
        for code in codes(names)
    }

    # An older version beside the newest one has a number after its name.
    clients = {
        ("JavaScript" if row["environment"].startswith("node") else "Python", re.sub(r"\d$", "", row["package"]))
        for row in rows
    }

    assert {("JavaScript", "cohere-ai") if client == ("JavaScript", "cohere") else client for client in clients} == page
