"""On every route that takes a body: nulls and unknown fields change nothing, and numbers may be strings or floats."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from conftest import calling
from stored_examples import store_examples

from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Litestar

    from nearfar.dialects.kit.route_docs import RouteDocs

pytestmark = pytest.mark.anyio

# What differs between equal requests: ids, times and durations.
_VOLATILE = {"id", "created", "created_at", "timestamp", "processing_time", "uptime", "state", "requests", "expires_at"}
_WITHOUT_BODY = {"/v1/check-api-key", "/v1/v1/check-api-key"}


def _posts() -> Iterator[tuple[str, str, RouteDocs]]:
    """Yield the dialect, path and docs of every POST."""
    for dialect in installed_dialects():
        for handler in dialect.handlers:
            if "POST" in handler.http_methods:
                about = handler.opt["docs"]
                for path in sorted(handler.paths):
                    yield dialect.name, re.sub(r":\w+}", "}", path).format_map(about.path), about
        yield from ((dialect.name, path, route.docs) for route in dialect.routes for path in route.paths)


POSTS = [
    (name, path, about)
    for name, path, about in _posts()
    if path not in _WITHOUT_BODY and about.body and about.body_media_type == "application/json"
]


@pytest.mark.parametrize(
    ("path", "about"), [post[1:] for post in POSTS], ids=[f"{name} {path}" for name, path, _ in POSTS]
)
async def test_nulls_and_unknown_fields_count_as_absent(path: str, about: RouteDocs, every_kind: Litestar) -> None:
    example: Any = about.example
    optional = _optional(about.body, example)

    await store_examples(every_kind)
    async with calling(every_kind) as client:
        plain = await client.post(path, json=example)
        nulled = await client.post(path, json=_with(example, dict.fromkeys(optional)))
        unknown = await client.post(path, json=_with(example, {"no_such_field": {"a": [1]}, "metadata": None}))

    assert plain.status_code in {200, 501}, plain.text  # 501: what Ollama does and this server doesn't
    assert _comparable(plain.json()) == _comparable(nulled.json())
    assert _comparable(plain.json()) == _comparable(unknown.json())


@pytest.mark.parametrize(
    ("path", "about"), [post[1:] for post in POSTS], ids=[f"{name} {path}" for name, path, _ in POSTS]
)
async def test_whole_numbers_may_be_strings_or_floats(path: str, about: RouteDocs, every_kind: Litestar) -> None:
    """As pydantic reads them, and writers in R, Lua and PHP send them."""
    example: Any = about.example

    await store_examples(every_kind)
    async with calling(every_kind) as client:
        for field in _integers(about.body, example):
            plain, text, whole = [
                await client.post(path, json=_with(example, {field: value})) for value in (2, "2", 2.0)
            ]

            assert plain.status_code == text.status_code == whole.status_code, (field, text.text, whole.text)
            assert _comparable(plain.json()) == _comparable(text.json()) == _comparable(whole.json()), field


async def test_nulls_do_not_choose_the_protocol_of_a_shared_path(every_kind: Litestar) -> None:
    """A client that sends every field it knows as null gets its own protocol's answer."""
    dialects = [route for dialect in installed_dialects() for route in dialect.routes]

    async with calling(every_kind) as client:
        for route in dialects:
            for path in route.paths:
                nulls = {
                    field: None for other in dialects if path in other.paths for field in other.fields if other != route
                }
                if not route.fields and nulls:
                    plain = await client.post(path, json=route.docs.example)
                    nulled = await client.post(path, json=_with(route.docs.example, nulls))

                    assert 200 == plain.status_code
                    assert _comparable(plain.json()) == _comparable(nulled.json()), path


def _integers(body: Any, example: Any) -> list[str]:
    """Return the optional fields that take whole numbers and that the example doesn't have."""
    kind = _struct(body, example)
    hints = get_type_hints(kind)
    return [name for name in _optional(body, example) if int in (get_args(hints[name]) or (hints[name],))]


def _struct(body: Any, example: Any) -> Any:
    if get_origin(body) in {Annotated, list}:
        return _struct(get_args(body)[0], example[0] if get_origin(body) is list else example)
    return _struct(next(kind for kind in body if _takes(kind, example)), example) if isinstance(body, tuple) else body


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
    if get_origin(kind) is Annotated:
        return _takes(get_args(kind)[0], example)
    return all(field.encode_name in example for field in msgspec.structs.fields(kind) if field.required)


def _comparable(answer: Any) -> Any:
    """Drop what differs between equal requests."""
    if isinstance(answer, dict):
        return {key: _comparable(value) for key, value in answer.items() if key not in _VOLATILE and not _is_time(key)}
    return [_comparable(item) for item in answer] if isinstance(answer, list) else answer


def _is_time(key: str) -> bool:
    return re.search(r"duration|_ms$|_at$", key) is not None
