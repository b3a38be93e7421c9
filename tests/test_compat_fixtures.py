"""Every case under compat_fixtures, replayed against the real application with the built-in model."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from comparing import differences, expanded
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
        content = json.dumps(expanded(request["json"])).encode()
    headers = {"content-type": "application/json", **request.get("headers", {})}
    response = await client.request(request["method"], request["path"], content=content, headers=headers)

    assert expect["status"] == response.status_code, response.text
    assert re.fullmatch(r"[\w.-]+", response.headers["x-request-id"])
    body = response.json() if "json" in response.headers.get("content-type", "") else response.text
    assert [] == differences(expect, response.status_code, response.headers, body)


def test_there_are_enough_cases_and_each_is_named_once() -> None:
    promises = [json.loads(file.read_text())["promise"] for file in CASES]

    assert len(CASES) >= 60
    assert len(promises) == len(set(promises))
