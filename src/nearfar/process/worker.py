"""The worker process: runs granian, drains at a signal, returns the exit code. The only module that imports granian.

Granian runs embedded, so that a signal reaches us first: requests in flight finish, and new ones are refused, before
granian stops. Granian's own reload at SIGHUP isn't used, because it drops requests in flight. SIGHUP reaches a worker
once another one serves; each connection then ends with its next response, and no request is refused.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.net import SocketHolder
from granian.server.embed import Server

from nearfar.core.errors import SetupError
from nearfar.core.settings import Settings
from nearfar.http.app import create_app
from nearfar.http.connections import Connections
from nearfar.process.certificates import certificate_paths, read_certificate
from nearfar.process.channel import Heartbeat, WorkerConfig
from nearfar.process.child import Start
from nearfar.process.connection_watcher import watch_connections
from nearfar.process.listener import BACKLOG, connection_limit
from nearfar.process.signals import StopSignals
from nearfar.telemetry.logs import configure_logging, log_config, mask_keys

if TYPE_CHECKING:
    from litestar import Litestar

    from nearfar.core.types import ModelInfo

_FLUSH_S = 0.5  # for granian to send the last responses; a guess: over loopback it takes 1 ms
_HANDOVER_S = 1.0  # after a reload: connections end with their next response; those still idle after this are closed
_STREAMS = 100  # of an HTTP/2 connection
_CLOSE_S = 5.0  # for granian and the models to close once nothing is in flight; a guess: they take 0.1 s

_log = logging.getLogger(__name__)


class _Granian(Server):  # type: ignore[misc]  # granian has no types for it
    """Granian on our listening sockets; it would open one with SO_REUSEPORT, which other processes can share."""

    def __init__(self, app: Litestar, listeners: Sequence[int], served: WorkerConfig) -> None:
        settings = served.settings
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=BACKLOG,
            backpressure=connection_limit(len(listeners)),
            http1_settings=HTTP1Settings(header_read_timeout=math.ceil(settings.keep_alive_timeout_s * 1000)),
            http2_settings=HTTP2Settings(
                max_concurrent_streams=_STREAMS, max_headers_size=HTTP1Settings.max_buffer_size
            ),
            log_level=LogLevels.error,  # its start and stop lines would repeat ours
            log_dictconfig=log_config(settings.log_format),
        )
        self.port = _bound_port(listeners[0])  # granian closes the listeners when it stops
        self.workers = len(listeners)  # granian's, which are tasks of this process; each accepts from one socket
        self._listeners = [SocketHolder(file, False, BACKLOG) for file in listeners]  # noqa: FBT003 — not a Unix socket
        if served.certificate:
            # As granian builds it from its options; but those resolve paths, and a nameless file's path can't be.
            paths = certificate_paths(settings, served.certificate)
            self.ssl_ctx: tuple[object, ...] = (True, *paths, None, str(SSLProtocols.tls12), None, [], False)

    def _init_shared_socket(self) -> None:
        self._ssp, self._shd = None, self._listeners[0]

    def _spawn_worker(self, idx: int, target: object, callback_loader: object) -> object:
        self._shd = self._listeners[idx]
        return super()._spawn_worker(idx, target, callback_loader)

    async def serve(self) -> None:
        """Serve until ``stop``, and close overdue connections."""
        connections: Connections = self.target.state.connections
        connections.limit = self.backpressure
        watching = asyncio.create_task(watch_connections(connections, self.port))
        try:
            await super().serve()
        finally:
            watching.cancel()


async def run_worker(served: WorkerConfig, listeners: Sequence[int], supervisor: int, start: Start) -> int:
    """Serve until a signal. Return the exit code: 0 after a drain, 1 if a model can't be opened.

    At a restart, ``served`` is what the last worker has served with. ``listeners`` are the file descriptors of
    the listening sockets, ``supervisor`` of the socket to the supervisor. Kills this process, by SIGTERM, if a model
    has failed for good or a thread doesn't end.
    """
    configure_logging(served.settings.log_format)
    try:
        served, app, server = _build(served, listeners, start)
    except SetupError as error:
        _log.error("can't start: %s", error)
        return 1
    mask_keys(app.state.key_mask.filter)
    heartbeat = Heartbeat(supervisor, served, app.state.key_ring)
    beating = asyncio.create_task(heartbeat.run())
    signals = StopSignals(supervisor)
    leave = asyncio.Event()
    lifespan = await _enter_lifespan(app, leave)
    serving = asyncio.create_task(server.serve()) if start != "reload" else None
    opening = asyncio.create_task(_open_models(app, served.settings, server.port))
    stopping = asyncio.create_task(signals.stop.wait())
    failing = asyncio.create_task(_failed(app))
    await _first_of(serving, opening, stopping, failing)
    if opening.done() and opening.result():
        serving = serving or asyncio.create_task(server.serve())
        heartbeat.report_ready()
        await _first_of(serving, stopping, failing)
    if serving and not serving.done():
        await _stop_serving(server, app, served.settings.drain_timeout_s, signals)
    closing = asyncio.create_task(_close(serving, lifespan, leave))
    await asyncio.wait((closing,), timeout=_FLUSH_S if failing.done() else _CLOSE_S)
    if failing.done() or not closing.done() or app.state.fleet.is_opening:
        _kill(is_expected=failing.done())
    for task in (beating, failing, stopping):
        task.cancel()
    await closing
    return 0 if signals.stop.is_set() else 1


def _build(served: WorkerConfig, listeners: Sequence[int], start: Start) -> tuple[WorkerConfig, Litestar, _Granian]:
    """Build the application and granian. Raises SetupError for settings, keys or a certificate that can't be used."""
    certificate = served.certificate or read_certificate(served.settings)
    served = msgspec.structs.replace(served, certificate=certificate)
    app = create_app(served.settings, must_open=start != "restart", known_keys=served.keys)
    _leave_deleted_folder()
    return served, app, _Granian(app, listeners, served)


async def _failed(app: Litestar) -> None:
    """Wait for a model to fail in a way that only another process can mend."""
    await app.state.fleet.died()
    _log.error("a model has failed for good; only a new process can serve it again")


def _leave_deleted_folder() -> None:
    """Change to the root folder if the working folder was deleted: granian fails without one."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")


def _kill(*, is_expected: bool) -> None:
    """End this process with all its threads."""
    if not is_expected:
        _log.warning("a thread is still loading a model or running a batch; exiting without it")
    logging.shutdown()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


async def _first_of(*tasks: asyncio.Future[Any] | None) -> None:
    await asyncio.wait([task for task in tasks if task], return_when=asyncio.FIRST_COMPLETED)


async def _close(serving: asyncio.Task[None] | None, lifespan: asyncio.Task[None], leave: asyncio.Event) -> None:
    """Wait for granian to end, then close the models."""
    try:
        if serving:
            await serving
    finally:
        leave.set()
        await lifespan


async def _enter_lifespan(app: Litestar, leave: asyncio.Event) -> asyncio.Task[None]:
    """Enter the application's lifespan. Return the task that stays in it until ``leave``."""
    entered = asyncio.get_running_loop().create_future()

    async def stay() -> None:
        async with app.lifespan():  # must end in the task that it began in
            entered.set_result(None)
            await leave.wait()

    lifespan = asyncio.create_task(stay())
    await _first_of(lifespan, entered)
    if lifespan.done():
        await lifespan  # raises whatever keeps it from starting
    return lifespan


async def _open_models(app: Litestar, settings: Settings, port: int) -> bool:
    """Wait until the models are open and log the server's URL. Return False if one can't be opened."""
    try:
        await app.state.fleet.opened()
    except Exception:  # noqa: BLE001 — the fleet has logged it, and whatever it was, this worker can't serve
        return False
    _tune_interpreter()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'https' if settings.tls_cert_file else 'http'}://{host}:{port}"
    _log.info("serving on %s  (OpenAI: /v1, Cohere: /, in a browser: /)", url)
    if command := _example_command(url, settings, app.state.fleet.infos()):
        _log.info("try it: %s", command)
    return True


def _example_command(url: str, settings: Settings, models: Sequence[ModelInfo]) -> str:
    """Return a command for the terminal that calls the first model that embeds or ranks; empty if there is none."""
    embeds, ranks = (next((info.name for info in models if task in info.tasks), None) for task in ("embed", "rank"))
    body: dict[str, object]
    if embeds:
        path, body = "/v1/embeddings", {"model": embeds, "input": "a cat"}
    elif ranks:
        path, body = "/v1/rerank", {"model": ranks, "query": "a cat", "documents": ["a kitten", "a car"]}
    else:
        return ""
    key = ' -H "Authorization: Bearer $NEARFAR_API_KEY"' if settings.api_key or settings.api_keys_file else ""
    return f"curl {url}{path}{key} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


def _bound_port(listener: int) -> int:
    with socket.fromfd(listener, -1, -1) as bound:  # a duplicate, of the same family and type
        port: int = bound.getsockname()[1]
        return port


def _tune_interpreter() -> None:
    """Keep the garbage collector and other threads from delaying the event loop, once everything has been loaded.

    Without the freeze, each full collection walks a hundred thousand objects of libraries; that made the p99. With the
    default switch interval, a thread that renders a large response keeps the interpreter lock for 5 ms at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.001)


async def _stop_serving(server: Server, app: Litestar, drain_timeout_s: float, signals: StopSignals) -> None:
    """Stop granian after the drain. If another worker serves, stop it first: new connections then go to that one."""
    if signals.is_replaced:
        app.state.drain.hand_over()
        await asyncio.sleep(_HANDOVER_S)
        server.stop()
        await _drain(app, drain_timeout_s, signals)
    else:
        await _drain(app, drain_timeout_s, signals)
        server.stop()


async def _drain(app: Litestar, drain_timeout_s: float, signals: StopSignals) -> None:
    """Wait for the requests in flight, and log what is left. An empty drain is logged only if a signal asked for it."""
    if lost := await app.state.drain.begin(drain_timeout_s, _log_drain):
        _log.warning("shutting down: %d requests didn't finish in time", lost)
    elif signals.stop.is_set():
        _log.info("shutting down: nothing is in flight")


def _log_drain(in_flight: int, left_s: float) -> None:
    _log.info("shutting down: %d requests in flight, which may take %.0f s to finish", in_flight, left_s)
