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
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any, TypeVar

    from litestar import Litestar

    _T = TypeVar("_T")


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


@pytest.fixture(scope="session")
def in_loop() -> Callable[[Coroutine[Any, Any, _T]], _T]:
    """Run a coroutine to its end; async tests need no plugin."""
    return asyncio.run
