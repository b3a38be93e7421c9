"""What the tests share: the built-in model's app with the real engine, and the same with the fake one.

The fake engine lies in ``plugins`` with an entry point of its own, as a stranger's package would.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))

from nearfar import Settings, create_app  # noqa: E402 — the plugins' path comes first

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from litestar import Litestar


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Litestar]:
    """Run the application in this loop, its models open."""
    app = create_app(settings)
    async with app.lifespan():
        await app.state.fleet.opened()
        yield app


@asynccontextmanager
async def calling(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that calls the application without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://nearfar.test") as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread brings about; the test's own time limit is the deadline."""
    while not condition():  # noqa: ASYNC110 — what is waited for knows no event loop
        await asyncio.sleep(0)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests, and the fixtures they share, on asyncio and in one loop."""
    return "asyncio"


@pytest.fixture(scope="session")
async def builtin() -> AsyncIterator[httpx.AsyncClient]:
    """Call an application that runs the built-in model on the real engine."""
    async with running(Settings(engine="torch")) as app, calling(app) as client:
        yield client


@pytest.fixture(scope="session")
async def faked() -> AsyncIterator[httpx.AsyncClient]:
    """Call an application that runs the fake engine behind the built-in model's tokenizer."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        yield client
