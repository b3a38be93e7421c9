"""Operations → one OpenAPI 3.1 document: parameters, bodies, answers and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import msgspec

from nearfar.core import errors
from nearfar.core.caller import ALL_SCOPES, SCOPES_FOR
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.endpoint import TRUNCATED
from nearfar.dialects.kit.error_responses import all_errors, error_row
from nearfar.http.openapi.operations import Operation, Schemas, any_of, list_operations, to_markdown
from nearfar.http.openapi.sample import sample

Json = dict[str, Any]

_KEY_ERRORS = (errors.ApiKeyMissing, errors.ApiKeyInvalid)
# Errors that no operation documents: base classes, a wrong path or method, and callers that don't read the document.
_UNDOCUMENTED = (
    errors.RequestError,
    errors.ServingError,
    errors.PathNotFound,
    errors.MethodNotAllowed,
    errors.ClientDisconnected,
    errors.HostNotAllowed,
)
_WITHOUT_A_BODY = (errors.ModelNotReady, errors.ShuttingDown, errors.InternalError)
_WITH_RETRY_AFTER = {"429", "503", "504"}
_NOT_NULL = {"not": {"type": "null"}}
_HEADERS: Mapping[str, Json] = {
    "x-request-id": {
        "description": "The request's id, as in the log: the caller's own if it was a plain token.",
        "required": True,
        "schema": {"type": "string"},
    },
    TRUNCATED: {
        "description": "The number of tokens that were truncated; of very long texts, the least it can be.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "metadata": {
        "description": "Of a reply of bytes: JSON with each vector's place, shape and type, the model and the usage.",
        "required": False,
        "schema": {"type": "string", "contentMediaType": "application/json"},
    },
    "retry-after": {
        "description": "Seconds to wait before a retry.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "retry-after-ms": {
        "description": "The same in milliseconds, if it isn't a whole number of seconds.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
_ABOUT = (
    "Embeddings, reranking, classification and tokenization by models on your own machine, in the protocols of several "
    "vendors. Requests and errors have the shape of the vendor that the path belongs to. On a path of several vendors "
    "the body's fields decide. Unknown fields are ignored unless the schema forbids them; null means absent. Fields of "
    "other protocols are refused where ignoring them would change the numbers."
)


class Documentation:
    """The document of one server, built at its first use."""

    def __init__(self, dialects: Sequence[Dialect], *, requires_key: bool) -> None:
        self._dialects = dialects
        self._requires_key = requires_key

    @cached_property
    def content(self) -> Json:
        """Return the document."""
        schemas = Schemas()
        by_route: dict[tuple[str, str], list[Operation]] = {}
        for operation in list_operations(self._dialects):
            by_route.setdefault((operation.path, operation.method), []).append(operation)
        paths: Json = {}
        for (path, method), sharing in sorted(by_route.items()):
            paths.setdefault(path, {})[method] = _describe(sharing, schemas, requires_key=self._requires_key)
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
            "security": [bearer] if self._requires_key else [{}, bearer],
            "tags": [{"name": dialect.name, "description": dialect.about} for dialect in self._dialects],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(schemas.components.items())),
                "headers": dict(_HEADERS),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }

    def json(self) -> bytes:
        """Return the document as JSON."""
        return msgspec.json.encode(self.content)


def _describe(sharing: Sequence[Operation], schemas: Schemas, *, requires_key: bool) -> Json:
    """Return the OpenAPI operation of one path and method, which several dialects may share."""
    first = sharing[0]
    descriptions = [operation.docstring for operation in sharing if operation.docstring]
    described: Json = {
        "operationId": "_".join([first.method, *re.findall(r"\w+", first.path)]),
        "tags": [operation.dialect.name for operation in sharing],
        "summary": first.about.summary,
        **({"description": "\n\n".join(dict.fromkeys(descriptions))} if descriptions else {}),
        **({"parameters": parameters} if (parameters := _parameters(first)) else {}),
    }
    if any(operation.about.body for operation in sharing):
        bodies = [_body(operation, schemas) for operation in sharing]
        examples = _named(sharing, [{"example": one.about.example, **one.about.examples} for one in sharing])
        content = {"schema": any_of(bodies), "examples": examples}
        described["requestBody"] = {"required": True, "content": {sharing[0].about.body_media_type: content}}
    failures = _failures(sharing, schemas, requires_key=requires_key)
    described["responses"] = {"200": _answer(sharing, schemas), **failures}
    return described | {"security": _security(sharing, requires_key=requires_key)}


def _security(sharing: Sequence[Operation], *, requires_key: bool) -> list[Json]:
    """Return the scopes of which a key needs one, each as an alternative; without keys, none is needed."""
    if sharing[0].public:
        return []
    kinds = {kind for operation in sharing for kind in operation.about.answers}
    scopes = [scope for scope in ALL_SCOPES if any(scope in SCOPES_FOR[kind] for kind in kinds)]
    needed = [[scope] for scope in scopes] if len(scopes) < len(ALL_SCOPES) else [[]]
    return [*([] if requires_key else [{}]), *({"bearer": scope} for scope in needed)]


def _body(operation: Operation, schemas: Schemas) -> Json:
    """Return the schema of a body, with the fields by which a shared path is dispatched: some set, others absent."""
    schema = schemas.of(operation.about.body, operation.dialect)
    rules: list[Json] = []
    if operation.fields:
        rules.append({"anyOf": [{"required": [name], "properties": {name: _NOT_NULL}} for name in operation.fields]})
    if operation.earlier_fields:
        rules.append({"properties": {name: {"type": "null"} for name in operation.earlier_fields}})
    return {"allOf": [schema, *rules]} if rules else schema


def _parameters(operation: Operation) -> list[Json]:
    about = operation.about
    in_path: list[Json] = []
    for name in re.findall(r"\{(\w+)\}", operation.path):
        schema: Json = {"enum": about.path_values[name]} if name in about.path_values else {"type": "string"}
        in_path.append({"name": name, "in": "path", "required": True, "schema": schema, "example": about.path[name]})
    return in_path + [{"name": name, "in": "query", "schema": schema} for name, schema in about.query.items()]


def _answer(sharing: Sequence[Operation], schemas: Schemas) -> Json:
    first = sharing[0].about
    counts_tokens = all(operation.about.body and operation.about.counts for operation in sharing)
    is_binary = any(operation.about.has_binary_reply for operation in sharing)
    names = ["x-request-id", *([TRUNCATED] if counts_tokens else []), *(["metadata"] if is_binary else [])]
    answer: Json = {
        "description": first.summary,
        "headers": {**_header_references(names), **_own_headers(sharing)},
    }
    if sharing[0].method != "head":
        replies = [schemas.of(one.about.reply, one.dialect) for one in sharing if one.about.reply]
        examples = _named(sharing, [_answer_examples(one, schemas) for one in sharing])
        content = {"schema": any_of(replies) if replies else {"type": "string"}}
        answer["content"] = {first.media_type: content | ({"examples": examples} if examples else {})}
        if is_binary:
            answer["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return answer


def _own_headers(sharing: Sequence[Operation]) -> Json:
    """Return the dialects' additional headers; those that all dialects of the path send are required."""
    texts = {name: text for operation in sharing for name, text in operation.about.headers.items()}
    return {
        name: {
            "description": text,
            "required": all(name in operation.about.headers for operation in sharing),
            "schema": {"type": "string"},
        }
        for name, text in texts.items()
    }


def _failures(sharing: Sequence[Operation], schemas: Schemas, *, requires_key: bool) -> Json:
    """Return the error responses by status: the reasons, and the shapes of all dialects concerned."""
    reasons: dict[str, list[tuple[str, Dialect]]] = {}
    for operation in sharing:
        for kind in _errors_of(operation, requires_key=requires_key):
            reason = re.split(r"\.|;", kind.__doc__ or "")[0] + "."
            status = str(error_row(kind, operation.dialect.errors).status)
            reasons.setdefault(status, []).append((reason, operation.dialect))
    failures: Json = {}
    for status, found in sorted(reasons.items()):
        headers = ["x-request-id", *(["retry-after", "retry-after-ms"] if status in _WITH_RETRY_AFTER else [])]
        failures[status] = {
            "description": to_markdown(" ".join(dict.fromkeys(reason for reason, _ in found))),
            "headers": _header_references(headers),
        }
        if sharing[0].method != "head":
            dialects = {dialect.name: dialect for _, dialect in found}.values()
            shape = any_of([schemas.of(dialect.error_reply, dialect) for dialect in dialects])
            failures[status]["content"] = {"application/json": {"schema": shape}}
    return failures


def _errors_of(operation: Operation, *, requires_key: bool) -> list[type[errors.NearfarError]]:
    about = operation.about
    for_key = _KEY_ERRORS if requires_key and not operation.public else ()
    if about.raises is not None:
        return [*for_key, *about.raises]
    if about.body is None:
        for_path = [errors.ModelNotFound] if about.path else []
        for_query = [errors.InputError] if about.query else []
        return [*for_key, *for_path, *for_query, *_WITHOUT_A_BODY]
    return [kind for kind in all_errors() if kind not in (*_UNDOCUMENTED, *_KEY_ERRORS) or kind in for_key]


def _answer_examples(operation: Operation, schemas: Schemas) -> Json:
    """Return an example of the answer, with the fields that the route itself documents."""
    about = operation.about
    if about.reply is None:
        return {}
    first = about.reply[0] if isinstance(about.reply, tuple) else about.reply
    found = sample(schemas.of(first, operation.dialect), schemas.components)
    own = msgspec.to_builtins(about.reply_example)
    return {"example": {**found, **own} if isinstance(own, dict) else own or found or None}


def _named(sharing: Sequence[Operation], examples: Sequence[Json]) -> Json:
    """Return each operation's examples by name; on a shared path the dialect's name is part of it.

    If a dialect has several operations there, the summary is as well.
    """
    dialects = [operation.dialect.name for operation in sharing]
    named: Json = {}
    for dialect, operation, found in zip(dialects, sharing, examples, strict=True):
        prefix = f"{dialect}, {operation.about.summary}: " if dialects.count(dialect) > 1 else f"{dialect}: "
        for name, value in found.items():
            if value is not None:
                named[name if len(sharing) == 1 else prefix + name] = {"value": value}
    return named


def _header_references(names: Sequence[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
