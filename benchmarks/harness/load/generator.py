"""The load generator: reads a LoadSpec from stdin, sends its requests to a server, writes a LoadResult to stdout.

Runs as a separate process (``python -m harness.load.generator``) and takes little of the machine it measures: bare
asyncio protocols over keep-alive connections, requests rendered beforehand, response bodies skipped, no garbage
collection. Standard library only. It knows neither the protocol of the bodies nor what a right answer is.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from harness.load.responses import ResponseParser, StreamStats
from harness.load.spec import LoadResult, LoadSpec, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

_HOST = "127.0.0.1"
_RECONNECT_S = 0.05  # a guess
_BUFFER_BYTES = 256 * 1024
_POLL_S = 0.02  # how often to check whether the run is over


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection with at most one request in flight.

    All connections read into one buffer: a plain Protocol would map and unmap 256 KiB for every response.
    """

    _buffer = memoryview(bytearray(_BUFFER_BYTES))

    def __init__(self, runner: StreamRunner) -> None:
        self._runner = runner
        self._response: ResponseParser | None = None
        self.index = 0
        self.scheduled = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request work."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — for the type checker
        self.transport = transport
        self._runner.dispatch(self)

    def send(self, index: int, request: bytes, scheduled: float, *, keep: bool) -> None:
        """Send a request. Its latency counts from ``scheduled``."""
        self.index, self.scheduled = index, scheduled
        self._response = ResponseParser(keep=keep)
        self.transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — asyncio's signature
        """Return the shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read; report a complete response."""
        response = self._response
        if response is not None and response.feed(bytes(self._buffer[:nbytes])):
            self._response = None
            self._runner.on_response(self, response)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        """Report the lost connection."""
        self._runner.on_disconnect(self, in_flight=self._response is not None)


class StreamRunner:
    """Send the requests of one stream over its connections, in a closed or an open loop."""

    def __init__(self, stream: StreamSpec, spec: LoadSpec, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._port, self._loop = stream, spec.port, loop
        self._requests = [_render(stream.path, spec.port, body) for body in stream.bodies]
        self.stats = StreamStats(stream, spec, loop.time)
        self._arrivals = random.Random(1)  # noqa: S311 — the same arrivals in every run
        self._queue: deque[float] = deque()  # arrival times of requests not yet sent; open loop only
        self._idle: list[Connection] = []  # used last in, first out
        self._connections = 0  # open or opening
        self._sent = 0
        self._in_flight = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start an open loop's arrivals, or connect all clients of a closed loop."""
        if self._stream.rate is not None:
            self._arrive(self._loop.time(), self._stream.rate)
            return
        for _ in range(self._stream.clients):
            self._connect_after(0)

    def stop(self) -> None:
        """Stop arrivals. What has arrived is still sent."""
        self._stopping = True

    def pending(self) -> int:
        """Return the number of requests without a response."""
        return self._in_flight + len(self._queue)

    def dispatch(self, connection: Connection) -> None:
        """Send the next request on a free connection, or mark the connection idle."""
        if self._queue:
            self._send(connection, self._queue.popleft())
        elif self._stopping or self._stream.rate is not None:
            self._idle.append(connection)
        else:
            self._send(connection, self._loop.time())

    def on_response(self, connection: Connection, response: ResponseParser) -> None:
        """Record a response and reuse its connection."""
        self._in_flight -= 1
        self.stats.record(connection.index, connection.scheduled, response)
        self.dispatch(connection)

    def on_disconnect(self, connection: Connection, *, in_flight: bool) -> None:
        """Record a request lost with its connection, and reconnect if another request needs it."""
        self._connections -= 1
        if in_flight:
            self._in_flight -= 1
            self.stats.record_failure("disconnected")
        elif connection in self._idle:
            self._idle.remove(connection)
        if self._queue or self._stream.rate is None:
            self._connect_after(_RECONNECT_S)

    def _send(self, connection: Connection, scheduled: float) -> None:
        index = self._sent % len(self._requests)
        self._sent += 1
        self._in_flight += 1
        connection.send(index, self._requests[index], scheduled, keep=self.stats.keeps(index))

    def _arrive(self, at: float, rate: float) -> None:
        """Queue all requests that are due. Callers are independent, so the gaps are exponential.

        On Linux the loop wakes up to a millisecond late, which counts as latency. selectors.SelectSelector wouldn't,
        but took 10.5 % of a core where this takes 6.7 (600 requests/s, 60 in flight).
        """
        while at <= self._loop.time() and not self._stopping:
            self._queue.append(at)
            if self._idle:
                self.dispatch(self._idle.pop())
            elif self._connections < self._stream.clients:
                self._connect_after(0)
            at += self._arrivals.expovariate(rate)
        if not self._stopping:
            self._loop.call_at(at, self._arrive, at, rate)

    def _connect_after(self, delay_s: float) -> None:
        self._connections += 1
        task = self._loop.create_task(self._connect(delay_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if self._stopping and not self._queue:
            return
        try:
            await self._loop.create_connection(lambda: Connection(self), _HOST, self._port)
        except OSError:
            self._connections -= 1
            self.stats.record_failure("refused")
            self._connect_after(_RECONNECT_S)


def _render(path: str, port: int, body: str) -> bytes:
    content = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def run(spec: LoadSpec) -> LoadResult:
    """Run all streams, then wait for the requests in flight, so that the next run finds an idle server."""
    loop = asyncio.get_running_loop()
    runners = [StreamRunner(stream, spec, loop) for stream in spec.streams]
    gc.collect()
    gc.freeze()
    gc.disable()
    start, cpu_s = loop.time(), time.process_time()
    deadline = start + spec.warmup_s + spec.duration_s + spec.timeout_s
    for runner in runners:
        runner.start()
    await _wait_until(lambda: all(runner.stats.is_complete() for runner in runners) or loop.time() > deadline)
    for runner in runners:
        runner.stop()
    await _wait_until(lambda: not any(runner.pending() for runner in runners) or loop.time() > deadline)
    generator_cpu = (time.process_time() - cpu_s) / (loop.time() - start)
    for runner in runners:
        if pending := runner.pending():
            runner.stats.record_failure("timeout", count=pending)
    return LoadResult(streams=tuple(runner.stats.result() for runner in runners), generator_cpu=generator_cpu)


async def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 — an event would be checked at every response; polling costs less
        await asyncio.sleep(_POLL_S)


def main() -> None:
    """Run the spec on stdin and write its result to stdout."""
    spec = LoadSpec.from_json(sys.stdin.read())
    sys.stdout.write(asyncio.run(run(spec)).to_json())


if __name__ == "__main__":
    main()
