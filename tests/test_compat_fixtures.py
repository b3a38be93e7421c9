"""Every case under compat_fixtures, replayed against the real application with the built-in model."""

from __future__ import annotations

import base64
import json
import re
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from conftest import calling, running

from nearfar import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parent.parent / "compat_fixtures"
CASES = sorted(FIXTURES.rglob("*.json"))


class Clients:
    """One running application for every set of settings that a case asks for."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._open: dict[str, httpx.AsyncClient] = {}

    async def get(self, server: dict[str, Any]) -> httpx.AsyncClient:
        key = json.dumps(server, sort_keys=True)
        if key not in self._open:
            app = await self._stack.enter_async_context(running(msgspec.convert({"device": "cpu", **server}, Settings)))
            self._open[key] = await self._stack.enter_async_context(calling(app))
        return self._open[key]


@pytest.fixture(scope="module")
async def clients() -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        yield Clients(stack)


@pytest.mark.parametrize("file", CASES, ids=lambda file: str(file.relative_to(FIXTURES).with_suffix("")))
async def test_the_answer_is_as_the_fixture_says(file: Path, clients: Clients) -> None:
    case = json.loads(file.read_text())  # noqa: ASYNC240 — a small file, and nobody waits
    request, expect = case["request"], case["expect"]
    assert {"promise", "source", "date"} <= case.keys()

    client = await clients.get(case.get("server", {}))
    content = request["body"].encode() if "body" in request else None
    if "json" in request:
        content = json.dumps(_expanded(request["json"])).encode()
    headers = {"content-type": "application/json", **request.get("headers", {})}
    response = await client.request(request["method"], request["path"], content=content, headers=headers)

    assert expect["status"] == response.status_code, response.text
    assert re.fullmatch(r"[\w.-]+", response.headers["x-request-id"])
    for name, part in expect.get("headers", {}).items():
        assert part in response.headers[name]
    for path in expect.get("absent", []):
        assert not _has(response.json(), path.split("."))
    _compare(_expanded(expect["json"]), response.json(), "$")


def test_there_are_enough_cases_and_each_is_named_once() -> None:
    promises = [json.loads(file.read_text())["promise"] for file in CASES]

    assert len(CASES) >= 60
    assert len(promises) == len(set(promises))


def _expanded(value: Any) -> Any:
    """Put the large inputs in place of their short forms."""
    if isinstance(value, dict) and "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    if isinstance(value, dict) and "$list" in value:
        item, times = value["$list"]
        return [_expanded(item)] * times
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return [_expanded(item) for item in value] if isinstance(value, list) else value


def _compare(expected: Any, found: Any, at: str) -> None:
    """Hold the whole answer against the fixture, placeholders against what they stand for."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), at
        assert sorted(expected) == sorted(found), at
        for key, value in expected.items():
            _compare(value, found[key], f"{at}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), at
        assert len(expected) == len(found), at
        for index, value in enumerate(expected):
            _compare(value, found[index], f"{at}[{index}]")
    elif isinstance(expected, str) and expected.startswith("<") and expected.endswith(">"):
        _compare_placeholder(expected[1:-1], found, at)
    else:
        assert expected == found, at
        assert type(expected) is type(found), at


def _compare_placeholder(kind: str, found: Any, at: str) -> None:
    word, _, argument = kind.partition(" ")
    if word == "has":
        assert argument in found, at
    elif word == "uuid":
        assert str(uuid.UUID(found)) == found, at
    elif word == "score":
        assert isinstance(found, float), at
        assert 0 <= found <= 1, at
    elif word in {"int8", "uint8"}:
        assert int(argument) == len(found), at
        np.array(found, dtype=word)  # OverflowError for a number outside
        assert {type(item) for item in found} == {int}, at
    elif word in {"vector", "base64"}:
        vector = np.frombuffer(base64.b64decode(found, validate=True), "<f4") if word == "base64" else np.array(found)
        assert (int(argument),) == vector.shape, at
        assert abs(np.linalg.norm(vector) - 1) < 1e-5, at
    else:
        kinds: dict[str, tuple[type, ...]] = {"any": (object,), "string": (str,), "int": (int,), "number": (int, float)}
        assert isinstance(found, kinds[word]), at
        assert not isinstance(found, bool), at


def _has(value: Any, path: list[str]) -> bool:
    """Tell whether the path leads anywhere; a null counts as being there."""
    if not path:
        return True
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    return path[0] in value and _has(value[path[0]], path[1:])
