"""Operations → one OpenAPI 3.1 document: parameters, bodies, answers, and what comes instead of them."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import all_errors, error_row
from nearfar.http.openapi.operations import prose, told_by
from nearfar.http.openapi.schemas import Schemas, any_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nearfar.dialects.kit.base import Dialect
    from nearfar.http.openapi.operations import Told

    Json = dict[str, Any]

_KEYS = (errors.ApiKeyMissing, errors.ApiKeyInvalid)
# What no operation answers: the roots of the tree, a path or a method that isn't there, a caller who is gone, and a
# stranger's web page.
_NEVER = (
    errors.RequestError,
    errors.ServingError,
    errors.PathNotFound,
    errors.MethodNotAllowed,
    errors.ClientDisconnected,
    errors.HostNotAllowed,
)
_WITHOUT_A_BODY = (errors.ModelNotReady, errors.ShuttingDown, errors.InternalError)
_CUT = "x-nearfar-truncated-tokens"
_LATER = {"429", "503", "504"}
_HEADERS: Mapping[str, Json] = {
    "x-request-id": {
        "description": "The request's id: the caller's own where it sent a plain one. The log has it.",
        "required": True,
        "schema": {"type": "string"},
    },
    _CUT: {
        "description": "How many tokens were cut off over-long texts, at least.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "retry-after": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "retry-after-ms": {
        "description": "The same in milliseconds, where it is no whole number of seconds.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
_ABOUT = (
    "Embeddings, reranking, classification and tokens by models on one's own machine, in the protocols of several "
    "vendors. Requests and errors have the shape of the vendor whose path is called; where several have the same "
    "path, the body's fields tell whose request it is. A field that isn't named is ignored unless its schema says "
    "otherwise, and null means the same as absent."
)


def document(dialects: Sequence[Dialect], *, asks_for_key: bool) -> Json:
    """Build the document of a server that speaks these dialects, and asks for a key or doesn't."""
    schemas = Schemas()
    shared: dict[tuple[str, str], list[Told]] = {}
    for told in told_by(dialects):
        shared.setdefault((told.path, told.method), []).append(told)
    paths: Json = {}
    for (path, method), claims in sorted(shared.items()):
        paths.setdefault(path, {})[method] = _operation(claims, schemas, asks_for_key=asks_for_key)
    bearer: Json = {"bearer": []}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nearfar",
            "version": version("nearfar"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [bearer] if asks_for_key else [{}, bearer],
        "tags": [{"name": dialect.name, "description": dialect.about} for dialect in dialects],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "headers": dict(_HEADERS),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(claims: Sequence[Told], schemas: Schemas, *, asks_for_key: bool) -> Json:
    first = claims[0]
    descriptions = [told.docstring for told in claims if told.docstring]
    operation: Json = {
        "operationId": "_".join([first.method, *re.findall(r"\w+", first.path)]),
        "tags": [told.dialect.name for told in claims],
        "summary": first.about.summary,
        **({"description": "\n\n".join(dict.fromkeys(descriptions))} if descriptions else {}),
        **({"parameters": parameters} if (parameters := _parameters(first)) else {}),
    }
    if any(told.about.body for told in claims):
        bodies = [_body(told, claims, schemas) for told in claims]
        content = {"schema": any_of(bodies), "examples": _examples(claims, "request")}
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    operation["responses"] = {"200": _answer(claims, schemas), **_refusals(claims, schemas, asks_for_key=asks_for_key)}
    return operation | ({"security": []} if first.public else {})


def _body(told: Told, claims: Sequence[Told], schemas: Schemas) -> Json:
    """Give the schema of a body: on a shared path, of one that is this dialect's by its fields."""
    schema = schemas.of(told.about.body, told.dialect)
    if len(claims) == 1 or not told.fields:
        return schema
    return {"allOf": [schema, {"anyOf": [{"required": [field]} for field in told.fields]}]}


def _parameters(told: Told) -> list[Json]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": told.about.path[name]}
        for name in re.findall(r"\{(\w+)\}", told.path)
    ]
    return in_path + [{"name": name, "in": "query", "schema": schema} for name, schema in told.about.query.items()]


def _answer(claims: Sequence[Told], schemas: Schemas) -> Json:
    first = claims[0].about
    names = ["x-request-id", *([_CUT] if all(told.about.body and told.about.counts for told in claims) else [])]
    answer: Json = {"description": first.summary, "headers": {**_named_headers(names), **_own_headers(claims)}}
    if claims[0].method != "head":
        replies = [schemas.of(told.about.reply, told.dialect) for told in claims if told.about.reply]
        examples = _examples(claims, "reply")
        content = {"schema": any_of(replies) if replies else {"type": "string"}}
        answer["content"] = {first.media_type: content | ({"examples": examples} if examples else {})}
    return answer


def _own_headers(claims: Sequence[Told]) -> Json:
    """Give what a dialect's answers have beside the usual; required unless another that shares the path lacks it."""
    named = {name: text for told in claims for name, text in told.about.headers.items()}
    return {
        name: {
            "description": text,
            "required": all(name in told.about.headers for told in claims),
            "schema": {"type": "string"},
        }
        for name, text in named.items()
    }


def _refusals(claims: Sequence[Told], schemas: Schemas, *, asks_for_key: bool) -> Json:
    """Give what may come instead of an answer, by status: why, and the shape of whichever dialect was asked."""
    reasons: dict[str, list[tuple[str, Dialect]]] = {}
    for told in claims:
        for kind in _raised(told, asks_for_key=asks_for_key):
            reason = re.split(r"\.|;", kind.__doc__ or "")[0] + "."
            reasons.setdefault(str(error_row(kind, told.dialect.errors).status), []).append((reason, told.dialect))
    has_body = claims[0].method != "head"
    return {
        status: {
            "description": prose(" ".join(dict.fromkeys(reason for reason, _ in found))),
            "headers": _named_headers(
                ["x-request-id", *(["retry-after", "retry-after-ms"] if status in _LATER else [])]
            ),
            **({"content": _fault([dialect for _, dialect in found], schemas)} if has_body else {}),
        }
        for status, found in sorted(reasons.items())
    }


def _raised(told: Told, *, asks_for_key: bool) -> list[type[errors.NearfarError]]:
    """List what may go wrong in an operation."""
    keys = _KEYS if asks_for_key and not told.public else ()
    if told.about.raises is not None:
        return [*keys, *told.about.raises]
    if told.about.body is None:
        asked = [
            *([errors.ModelNotFound] if told.about.path else []),
            *([errors.InputError] if told.about.query else []),
        ]
        return [*keys, *asked, *_WITHOUT_A_BODY]
    return [kind for kind in all_errors() if kind not in (*_NEVER, *_KEYS) or kind in keys]


def _fault(dialects: Sequence[Dialect], schemas: Schemas) -> Json:
    shapes = [schemas.of_errors(dialect) for dialect in dialects]
    return {"application/json": {"schema": any_of(shapes)}}


def _examples(claims: Sequence[Told], which: str) -> Json:
    """Name the examples, by their dialect where a path has several."""
    found: Json = {}
    for told in claims:
        about, whose = told.about, told.dialect.name
        given = {"example": about.example, **about.examples} if which == "request" else {"example": about.reply_example}
        for name, value in given.items():
            if value is not None:
                found[name if len(claims) == 1 else f"{whose}: {name}"] = {"value": value}
    return found


def _named_headers(names: Sequence[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
