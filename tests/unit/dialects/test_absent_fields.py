"""On every route that takes a body, explicit nulls and unknown fields change nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import msgspec
import pytest
from conftest import calling

from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Litestar

    from nearfar.dialects.kit.route_docs import RouteDocs

pytestmark = pytest.mark.anyio

# What differs between equal requests: ids, times and durations.
_VOLATILE = {"id", "created", "created_at", "timestamp", "processing_time", "uptime", "state", "requests"}
_WITHOUT_BODY = {"/v1/check-api-key", "/v1/v1/check-api-key"}


def _posts() -> Iterator[tuple[str, str, RouteDocs]]:
    """Yield the dialect, path and docs of every POST."""
    for dialect in installed_dialects():
        for handler in dialect.handlers:
            if "POST" in handler.http_methods:
                yield from ((dialect.name, path, handler.opt["docs"]) for path in sorted(handler.paths))
        yield from ((dialect.name, path, route.docs) for route in dialect.routes for path in route.paths)


POSTS = [(name, path, about) for name, path, about in _posts() if path not in _WITHOUT_BODY]


@pytest.mark.parametrize(
    ("path", "about"), [post[1:] for post in POSTS], ids=[f"{name} {path}" for name, path, _ in POSTS]
)
async def test_nulls_and_unknown_fields_count_as_absent(path: str, about: RouteDocs, every_kind: Litestar) -> None:
    example: Any = about.example
    optional = _optional(about.body, example)

    async with calling(every_kind) as client:
        plain = await client.post(path, json=example)
        nulled = await client.post(path, json=_with(example, dict.fromkeys(optional)))
        unknown = await client.post(path, json=_with(example, {"no_such_field": {"a": [1]}, "metadata": None}))

    assert plain.status_code in {200, 501}, plain.text  # 501: what Ollama does and this server doesn't
    assert _comparable(plain.json()) == _comparable(nulled.json())
    assert _comparable(plain.json()) == _comparable(unknown.json())


def _with(example: Any, more: dict[str, Any]) -> Any:
    return [_with(one, more) for one in example] if isinstance(example, list) else {**more, **example}


def _optional(body: Any, example: Any) -> list[str]:
    """Return the optional fields that the example doesn't have."""
    if get_origin(body) is Annotated:
        return _optional(get_args(body)[0], example)
    if get_origin(body) is list:
        return _optional(get_args(body)[0], example[0])
    if isinstance(body, tuple):
        return _optional(next(kind for kind in body if _takes(kind, example)), example)
    fields = msgspec.structs.fields(body)
    return [field.encode_name for field in fields if not field.required and field.encode_name not in example]


def _takes(kind: Any, example: Any) -> bool:
    return all(field.encode_name in example for field in msgspec.structs.fields(kind) if field.required)


def _comparable(answer: Any) -> Any:
    """Drop what differs between equal requests."""
    if isinstance(answer, dict):
        return {key: _comparable(value) for key, value in answer.items() if key not in _VOLATILE and not _is_time(key)}
    return [_comparable(item) for item in answer] if isinstance(answer, list) else answer


def _is_time(key: str) -> bool:
    return re.search(r"duration|_ms$|_at$", key) is not None
