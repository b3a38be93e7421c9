"""Every case under compat_fixtures, replayed against the real application with the built-in model."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from comparing import cases_of, differences, expanded
from conftest import calling, running
from failures import ENDPOINTS, written

from nearfar import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parents[3] / "compat_fixtures"
CASES = {
    f"{file.relative_to(FIXTURES).parent.as_posix()}/{name}": case
    for file in sorted(FIXTURES.rglob("*.json"))
    for name, case in cases_of(file)
}
DIALECTS = sorted({name.partition("/")[0] for name in CASES})


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


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_answers_match_the_fixtures(dialect: str, clients: Clients) -> None:
    cases = {name: case for name, case in CASES.items() if name.startswith(f"{dialect}/")}

    wrong = [f"{name}: {line}" for name, case in cases.items() for line in await _differences_of(case, clients)]

    assert not wrong, "\n".join(wrong)  # pytest shortens a long list, but not a message


async def _differences_of(case: dict[str, Any], clients: Clients) -> list[str]:
    """Send a case's request, and return the differences between the response and the expected one."""
    request = case["request"]
    client = await clients.get(case.get("server", {}))
    content = request["body"].encode() if "body" in request else None
    if "json" in request:
        content = json.dumps(expanded(request["json"])).encode()
    headers = {"content-type": "application/json", **request.get("headers", {})}
    response = await client.request(request["method"], request["path"], content=content, headers=headers)

    has_id = re.fullmatch(r"[\w.-]+", response.headers.get("x-request-id", ""))
    body = response.json() if "json" in response.headers.get("content-type", "") else response.text
    found = differences(case["expect"], response.status_code, response.headers, body)
    return found if has_id else [*found, "x-request-id is missing or malformed"]


def test_every_case_has_a_promise_a_source_and_a_date() -> None:
    assert [] == [name for name, case in CASES.items() if not {"promise", "source", "date"} <= case.keys()]


def test_there_are_enough_cases_and_each_is_named_once() -> None:
    promises = [case["promise"] for case in CASES.values()]

    assert len(CASES) >= 900
    assert len(promises) == len(set(promises))


def test_the_generated_failures_match_their_tables() -> None:
    stale = [
        endpoint.folder
        for endpoint in ENDPOINTS
        if written(endpoint) != (FIXTURES / endpoint.folder / "failures.json").read_text()
    ]

    assert [] == stale, "run: python compat_fixtures/failures.py"


def test_every_endpoint_has_its_failures() -> None:
    folders = {name.rpartition("/")[0] for name, case in CASES.items() if case["request"]["method"] == "POST"}

    assert _WITHOUT_FAILURES == folders - {endpoint.folder for endpoint in ENDPOINTS}


# What runs nothing, does what another endpoint does, or needs a model of another kind than the built-in one.
_WITHOUT_FAILURES = {
    *(f"{dialect}/unknown_path" for dialect in ("cohere", "openai", "jina", "voyage")),
    *(f"tei/{endpoint}" for endpoint in ("embed_sparse", "predict", "invocations", "root", "vertex", "health")),
    "cohere/check_api_key",
    "embed_rerank/batch",
    "ollama/orders",
    "openai/batches",
    "openai/files",
    "openai/models",
    "openai/uploads",
}
