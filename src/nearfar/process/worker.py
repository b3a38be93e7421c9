"""The worker process: granian, signals, and the exit code. The only module that knows granian.

Granian runs embedded, in this very process: a signal then reaches us first, and requests in flight can finish
while new ones are told to come back, before granian is asked to stop. Its own reload at SIGHUP isn't used: it would
open the same application a second time, and drop what the first still had in flight. To us SIGHUP is one more way to
say stop, said when another worker serves already: connections then end with the answer that is on its way.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import sys
from typing import TYPE_CHECKING, Any

from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder
from granian.server.embed import Server

from nearfar.core.errors import SetupError
from nearfar.http.app import create_app
from nearfar.process.certificates import find_certificate
from nearfar.process.signals import Orders
from nearfar.process.supervisor import BACKLOG
from nearfar.telemetry.logs import configure_logging, log_config

if TYPE_CHECKING:
    from pathlib import Path

    from litestar import Litestar

    from nearfar.core.settings import Settings
    from nearfar.process.supervisor import Start

_FLUSH_S = 0.5  # for granian to send what was answered; a guess, on this machine's own network it takes 1 ms
_GOODBYE_S = 1.0  # for connections in use to end with their next answer; those that are idle are closed then
_STOP_S = 5.0  # for granian and the models to close, once nothing is in flight; a guess, they take 0.1 s

_log = logging.getLogger(__name__)


class _OnPort(Server):  # type: ignore[misc]  # granian tells no types of it
    """Granian on a port that is open already. By itself it would open one that several processes may share."""

    def __init__(
        self, app: Litestar, port: SocketHolder, settings: Settings, certificate: tuple[Path, Path] | None
    ) -> None:
        files = certificate or (None, None)
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            http1_settings=HTTP1Settings(header_read_timeout=math.ceil(settings.receive_timeout_s * 1000)),
            ssl_cert=files[0],
            ssl_key=files[1],
            ssl_protocol_min=SSLProtocols.tls12,
            log_level=LogLevels.error,  # its start and stop lines would repeat ours
            log_dictconfig=log_config(settings.log_format),
        )
        self._port = port

    def _init_shared_socket(self) -> None:
        self._ssp, self._shd = None, self._port


async def run_server(settings: Settings, port: int, line: int, start: Start) -> int:
    """Serve until a signal; give the exit code: 0 after a drain, 1 when a model can't be opened.

    ``port`` is the number of an open file that listens, ``line`` of one that ends when nobody is there any more for
    whom to serve, and who hears there that the models are open. ``start`` says whether to serve before that.
    Ends the process itself, by a signal, where a model has stopped or a thread doesn't end.
    """
    configure_logging(settings.log_format)
    try:
        certificate = find_certificate(settings)
        app = create_app(settings, must_open=start != "again")
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    server = _OnPort(app, SocketHolder(port, False, BACKLOG), settings, certificate)  # noqa: FBT003 — whether it's a Unix socket
    orders = Orders(line)
    life = _Life(app)
    await life.begin()
    serving = asyncio.create_task(server.serve()) if start != "beside" else None
    opening = asyncio.create_task(_open(app, settings))
    stopping = asyncio.create_task(orders.stop.wait())
    dying = asyncio.create_task(app.state.fleet.died())
    await _any_of(serving, opening, stopping, dying)
    if opening.done() and opening.result():
        serving = serving or asyncio.create_task(server.serve())
        orders.tell_ready()
        await _any_of(serving, stopping, dying)
    code = 0 if orders.stop.is_set() else 1
    if dying.done():
        _log.error("a model has stopped, and only another process can serve it again")
    if serving and not serving.done():
        await _leave(server, app, settings.drain_timeout_s, orders)
    closing = asyncio.create_task(_close(serving, life))
    await asyncio.wait((closing,), timeout=_FLUSH_S if dying.done() else _STOP_S)
    if dying.done() or not closing.done() or app.state.fleet.is_opening:
        _end(told=not dying.done())
    dying.cancel()
    stopping.cancel()
    await closing
    return code


def _end(*, told: bool) -> None:
    """End this process, threads and all."""
    if told:
        _log.warning("a thread is still loading a model or running a batch; ending without it")
    logging.shutdown()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


async def _any_of(*tasks: asyncio.Task[Any] | None) -> None:
    await asyncio.wait([task for task in tasks if task], return_when=asyncio.FIRST_COMPLETED)


async def _close(serving: asyncio.Task[None] | None, life: _Life) -> None:
    """Wait for granian, and close the models."""
    try:
        if serving:
            await serving
    finally:
        await life.end()


class _Life:
    """An application's lifespan, in a task of its own: it must end in the one that it began in."""

    def __init__(self, app: Litestar) -> None:
        self._app = app
        self._over = asyncio.Event()

    async def begin(self) -> None:
        """Begin it. Raises what kept it from beginning."""
        begun = asyncio.get_running_loop().create_future()
        self._living = asyncio.create_task(self._live(begun))
        await asyncio.wait((self._living, begun), return_when=asyncio.FIRST_COMPLETED)
        if self._living.done():
            await self._living

    async def end(self) -> None:
        """End it, and wait for that."""
        self._over.set()
        await self._living

    async def _live(self, begun: asyncio.Future[None]) -> None:
        async with self._app.lifespan():
            begun.set_result(None)
            await self._over.wait()


async def _open(app: Litestar, settings: Settings) -> bool:
    """Wait for the models and say so; give False, the fleet having said why, when one can't be opened."""
    try:
        await app.state.fleet.opened()
    except Exception:  # noqa: BLE001 — the fleet logged it; whatever it was, this server can't serve
        return False
    _settle()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert_file else "http"
    _log.info("serving on %s://%s:%d  (OpenAI: /v1, Cohere: /, about: /info)", scheme, host, settings.port)
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


async def _leave(server: Server, app: Litestar, request_timeout_s: float, orders: Orders) -> None:
    """Stop granian: once what is in flight is answered, or at once, and then that, where another worker listens."""
    if orders.is_followed:
        app.state.drain.hand_over()
        await asyncio.sleep(_GOODBYE_S)
        server.stop()
        await _drain(app, request_timeout_s, orders)
    else:
        await _drain(app, request_timeout_s, orders)
        server.stop()


async def _drain(app: Litestar, request_timeout_s: float, orders: Orders) -> None:
    """Let what is in flight finish. That nothing is left is news only where somebody told the server to stop."""
    drain = app.state.drain
    if lost := await drain.begin(request_timeout_s, _tell_drain):
        _log.warning("shutting down: %d requests didn't finish in time", lost)
    elif orders.stop.is_set():
        _log.info("shutting down: nothing is in flight")


def _tell_drain(in_flight: int, left_s: float) -> None:
    _log.info("shutting down: %d requests in flight, which may take %.0f s to finish", in_flight, left_s)
