"""The process: granian, signals, and the exit code. The only module that knows granian.

Granian runs embedded, in this very process: a signal then reaches us first, and requests in flight can finish
while new ones are told to come back, before granian is asked to stop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
from typing import TYPE_CHECKING

from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from nearfar.app import create_app
from nearfar.errors import ConfigError, SetupError
from nearfar.logs import configure_logging, log_config

if TYPE_CHECKING:
    from litestar import Litestar

    from nearfar.config import Settings

_STOP_S = 5.0  # for granian and the models to close, once nothing is in flight; a guess, they take 0.1 s

_log = logging.getLogger(__name__)


async def run_server(settings: Settings) -> int:
    """Serve until a signal; give the exit code: 0 after a drain, 1 when the port or a model can't be opened."""
    configure_logging(settings.log_format)
    try:
        address = _free_address(settings)
        app = create_app(settings)
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    server = Server(
        app,
        address=address,
        port=settings.port,
        interface=Interfaces.ASGI,
        websockets=False,
        backlog=2048,
        http1_settings=HTTP1Settings(header_read_timeout=math.ceil(settings.receive_s * 1000)),
        log_level=LogLevels.error,  # its start and stop lines would repeat ours
        log_dictconfig=log_config(settings.log_format),
    )
    stop = _on_signal()
    serving = asyncio.create_task(server.serve())
    opening = asyncio.create_task(_open(app, settings))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and opening.result():
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    code = 0 if stop.is_set() else 1
    if not serving.done():
        await _drain(app, settings.drain_s)
        server.stop()
    await asyncio.wait((serving,), timeout=_STOP_S)
    if not serving.done() or app.state.fleet.is_opening:
        _log.warning("a thread is still loading a model or running a batch; ending without it")
        logging.shutdown()
        signal.raise_signal(signal.SIGTERM)
    stopping.cancel()
    await serving
    return code


def _free_address(settings: Settings) -> str:
    """Resolve the host to the number that granian wants, IPv4 first. Raises ConfigError where it can't be bound.

    Granian would share a port with another granian, and each would get some of the requests.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may linger
            probe.bind(address)
        return str(address[0])
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ConfigError(f"can't listen on {settings.host}:{settings.port}: {reason}") from error


def _on_signal() -> asyncio.Event:
    """Give an event that SIGTERM and Ctrl-C set; a second one ends the process at once, as it would without us."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first)
    return stop


async def _open(app: Litestar, settings: Settings) -> bool:
    """Wait for the models and say so; give False, the fleet having said why, when one can't be opened."""
    try:
        await app.state.fleet.opened()
    except Exception:  # noqa: BLE001 — the fleet logged it; whatever it was, this server can't serve
        return False
    _settle()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _log.info("serving on http://%s:%d  (OpenAI: /v1, Cohere: /, about: /info)", host, settings.port)
    return True


def _settle() -> None:
    """Tame what would hold up the event loop, once everything that stays has been loaded.

    The garbage collector would look through a hundred thousand objects of libraries for what a request left: that was
    the p99. And a thread that renders a large answer would keep Python's lock for 5 ms each time the loop wants it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.001)


async def _drain(app: Litestar, deadline_s: float) -> None:
    drain = app.state.drain
    if drain.in_flight:
        _log.info("shutting down: %d requests may take %g s to finish", drain.in_flight, deadline_s)
    if lost := await drain.begin(deadline_s):
        _log.warning("shutting down: %d requests didn't finish in time", lost)
