"""The OpenAPI document is complete and correct: what it documents is answered, and as documented."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from conftest import calling, running
from litestar.routes import HTTPRoute
from openapi_document import ALLOWED_REFUSALS, DOCUMENT, OPERATIONS, address, examples, faults, request_body, resolved
from openapi_spec_validator import OpenAPIV31SpecValidator
from stored_examples import store_examples

from nearfar import Settings
from nearfar.dialects.kit.error_responses import WireError, all_errors
from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio

DIALECTS = {dialect.name: dialect for dialect in installed_dialects()}
REQUESTS = [
    pytest.param(path, method, body, id=f"{method} {path} {name}")
    for path, method in OPERATIONS
    for name, body in [*examples(DOCUMENT["paths"][path][method].get("requestBody", {"content": {"": {}}})["content"])]
    or [("", None)]
]


@pytest.fixture
async def everything(every_kind: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Call a server with a model for every task, run by the real engine."""
    await store_examples(every_kind)
    async with calling(every_kind) as client:
        yield client


async def test_the_document_is_valid_openapi() -> None:
    assert [] == [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]


async def test_every_route_is_in_the_document() -> None:
    async with running(Settings(engine="fake")) as app:
        routes = {
            (re.sub(r":\w+\}", "}", route.path), method.lower())
            for route in app.routes
            for method in (route.methods if isinstance(route, HTTPRoute) else ["POST"])  # the others run jobs
            if method != "OPTIONS"  # Litestar's own answer to every path
            if not route.path.startswith(("/ui", "/docs", "/redoc")) or "manual" in route.path  # the page for browsers
        }

    assert set(OPERATIONS) == routes


async def test_every_operation_has_examples_of_its_request_and_answer() -> None:
    bare = [
        (method, path, part)
        for path, method in OPERATIONS
        for part, content in _contents(DOCUMENT["paths"][path][method])
        if "application/json" in content and not [*examples(content)] and not path.endswith("openapi.json")
    ]

    assert [] == bare


async def test_examples_match_their_schemas() -> None:
    found = [
        (method, path, part, name, fault)
        for path, method in OPERATIONS
        for part, content in _contents(DOCUMENT["paths"][path][method])
        for name, value in examples(content)
        for fault in faults(content["application/json"]["schema"], value, is_ours=part == "answer")
    ]

    assert [] == found


@pytest.mark.parametrize(("path", "method", "body"), REQUESTS)
async def test_documented_requests_are_answered_as_documented(
    path: str, method: str, body: object, everything: httpx.AsyncClient
) -> None:
    operation = DOCUMENT["paths"][path][method]
    documented = operation["responses"]["200"]

    response = await everything.request(method, address(path, operation), **request_body(operation, body))

    assert 200 == response.status_code, response.text
    headers = {name for name in response.headers if name not in {"content-type", "content-length"}}
    required = {name for name, header in documented["headers"].items() if resolved(header)["required"]}
    assert required <= headers <= {*documented["headers"]}
    content = documented.get("content", {})
    media_type = response.headers.get("content-type", "").partition(";")[0]
    is_binary = isinstance(body, dict) and str(body.get("encoding_format")).startswith("bytes")
    assert method == "head" or media_type == ("application/octet-stream" if is_binary else next(iter(content)))
    if media_type == "application/json" and content:
        assert [] == faults(content[media_type]["schema"], response.json())


async def test_what_a_path_s_alternatives_allow_is_not_refused(faked: httpx.AsyncClient) -> None:
    """With each field of any alternative as null, and with the fields of two examples together."""
    found = []
    for path, bodies in _mixed_bodies():
        operation = DOCUMENT["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        for body in bodies:
            if not faults(schema, body, is_ours=False):
                response = await faked.post(address(path, operation), json=body)
                is_refused = response.status_code in {400, 422} and not ALLOWED_REFUSALS.search(response.text)
                found += [(path, body, response.text)] if is_refused else []

    assert [] == found


def _mixed_bodies() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the paths with alternatives, each with bodies that most of them forbid."""
    for path, method in OPERATIONS:
        content = DOCUMENT["paths"][path][method].get("requestBody", {"content": {}})["content"]
        alternatives = content.get("application/json", {"schema": {}})["schema"].get("anyOf", ())
        examples_ = [example for _, example in examples(content)]
        names = {name for one in alternatives for name in _properties(one)}
        if len(alternatives) > 1:
            alone = [{name: None} for name in names]
            nulled = [{**example, name: None} for example in examples_ for name in names]
            yield path, [*alone, *nulled, *({**one, **other} for one in examples_ for other in examples_)]


def _properties(schema: dict[str, Any]) -> set[str]:
    """Return the names of the fields that a schema mentions."""
    inner = resolved(schema)
    found = {*inner.get("properties", ()), *schema.get("properties", ())}
    return found.union(*map(_properties, [*inner.get("allOf", ()), *inner.get("anyOf", ())]))


async def test_errors_match_their_dialect_s_schema() -> None:
    found = []
    for name, dialect in DIALECTS.items():
        schema = {"$ref": f"#/components/schemas/{name}.{dialect.error_reply.__name__}"}
        for kind in all_errors():
            error = kind.__new__(kind)
            vars(error).update(param="input", listing=False)  # attributes that some dialects read
            wire = WireError(error=error, status=400, kind="kind", code=None, message="a message")
            body = msgspec.json.decode(msgspec.json.encode(dialect.render_error(wire)))
            found += [(name, kind.__name__, fault) for fault in faults(schema, body)]

    assert [] == found


REFUSALS = [
    ("/v1/embeddings", {"model": "nobody", "input": "a"}, 404),
    ("/v2/rerank", {"model": "nobody", "query": "a", "documents": ["a"]}, 404),
    ("/v1/embeddings", {"model": "builtin"}, 400),
    ("/v2/embed", {"model": "embed-v4.0", "texts": ["a"]}, 400),
    ("/similarity", {"inputs": "a"}, 422),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400),
    ("/score", {"text_1": "a"}, 400),
    ("/represent", {"input": []}, 400),
    ("/tokenize", {"inputs": 1}, 422),
    ("/tokenize", {"prompt": 1}, 400),
    ("/admin/models/load", {"model": "nobody"}, 404),
]


async def test_documented_refusals_match_their_schema(faked: httpx.AsyncClient) -> None:
    found = []
    for path, body, status in REFUSALS:
        documented = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
        response = await faked.post(path, json=body)
        wrong = faults(documented["content"]["application/json"]["schema"], response.json())
        found += [(path, body, response.status_code, wrong)] if wrong or status != response.status_code else []

    assert [] == found


async def test_the_document_needs_no_key_but_documents_it() -> None:
    async with running(Settings(engine="fake", api_key="sk-1")) as app, calling(app) as client:
        found = [await client.get(path) for path in ("/openapi.json", "/api-doc/openapi.json")]
        refused = await client.get("/info")

    assert [200] * 2 == [response.status_code for response in found]
    document = found[0].json()
    assert document == found[1].json() == json.loads(json.dumps(DOCUMENT))
    assert ([{"bearer": []}], []) == (document["security"], document["paths"]["/docs/manual"]["get"]["security"])
    assert 401 == refused.status_code


async def test_a_server_without_a_key_documents_none(faked: httpx.AsyncClient) -> None:
    document = (await faked.get("/openapi.json")).json()

    assert {} in document["security"]
    assert not [path for path, ops in document["paths"].items() for op in ops.values() if "401" in op["responses"]]


def test_two_types_of_one_name_in_a_dialect_are_refused() -> None:
    from nearfar.http.openapi.operations import Schemas

    one = msgspec.defstruct("Same", [("a", int)])
    other = msgspec.defstruct("Same", [("b", int)])
    schemas = Schemas()
    schemas.of(one, DIALECTS["native"])

    with pytest.raises(ValueError, match="two types named Same"):
        schemas.of(other, DIALECTS["native"])


def _contents(operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the contents of the request and of the answer."""
    sent = [("request", operation["requestBody"]["content"])] if "requestBody" in operation else []
    return [*sent, ("answer", operation["responses"]["200"].get("content", {}))]
