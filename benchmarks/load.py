"""The load generator: reads an order (orders.py) from stdin, keeps a server busy, writes the outcome to stdout.

Runs in a process of its own and takes little of what it measures: bare asyncio protocols over keep-alive connections,
requests rendered beforehand, answers skipped rather than read, no garbage collection. Standard library only. It knows
neither what a request asks, nor whether the values in an answer are right.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from answers import Answer
from orders import Order, Outcome, Stream
from tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

_HOST = "127.0.0.1"
_RETRY_S = 0.05  # before connecting again after a loss; a guess
_BUFFER = 256 * 1024
_LOOK_S = 0.02  # how often the run looks whether it is over


class Client(asyncio.BufferedProtocol):
    """One keep-alive connection with at most one request in flight.

    All read into one buffer: a plain Protocol would have 256 KiB mapped and unmapped for every answer.
    """

    _buffer = memoryview(bytearray(_BUFFER))

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._answer: Answer | None = None
        self.number = 0
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Report for work."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — for the type checker
        self.transport = transport
        self._sender.give_work(self)

    def send(self, number: int, request: bytes, since: float, *, keep: bool) -> None:
        """Send a request whose time runs from ``since``."""
        self.number, self.since = number, since
        self._answer = Answer(keep=keep)
        self.transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 — asyncio's signature
        """Say where to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read on in the answer; when it is complete, ask for more work."""
        answer = self._answer
        if answer is not None and answer.feed(bytes(self._buffer[:nbytes])):
            self._answer = None
            self._sender.take_answer(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        """Report the loss."""
        self._sender.lose(self, in_flight=self._answer is not None)


class Sender:
    """Runs one stream: hands requests to its clients, in a closed loop or as they arrive."""

    def __init__(self, stream: Stream, order: Order, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._port, self._loop = stream, order.port, loop
        self._requests = [_render(stream.path, order.port, body) for body in stream.bodies]
        self.tally = Tally(stream, order, loop.time)
        self._arrivals = random.Random(1)  # noqa: S311 — the same arrivals in every run
        self._due: deque[float] = deque()  # arrived and not yet sent; open loop only
        self._idle: list[Client] = []  # the last one is taken first
        self._open = 0  # connections that are there or on their way
        self._turn = 0
        self._in_flight = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect all clients; or let requests arrive, and connect as many as these need."""
        if self._stream.rate is not None:
            self._arrive(self._loop.time(), self._stream.rate)
            return
        for _ in range(self._stream.clients):
            self._connect_after(0)

    def stop(self) -> None:
        """Let nothing more arrive; what has arrived is still sent."""
        self._stopping = True

    def waiting(self) -> int:
        """Count the requests without an answer."""
        return self._in_flight + len(self._due)

    def give_work(self, client: Client) -> None:
        """Give a client its next request, or let it wait for one."""
        if self._due:
            self._send(client, self._due.popleft())
        elif self._stopping or self._stream.rate is not None:
            self._idle.append(client)
        else:
            self._send(client, self._loop.time())

    def take_answer(self, client: Client, answer: Answer) -> None:
        """Count an answer and go on."""
        self._in_flight -= 1
        self.tally.answered(client.number, client.since, answer)
        self.give_work(client)

    def lose(self, client: Client, *, in_flight: bool) -> None:
        """Count what went down with a connection, and open another."""
        self._open -= 1
        if in_flight:
            self._in_flight -= 1
            self.tally.failed("lost")
        elif client in self._idle:
            self._idle.remove(client)
        if self._due or self._stream.rate is None:
            self._connect_after(_RETRY_S)

    def _send(self, client: Client, since: float) -> None:
        number = self._turn % len(self._requests)
        self._turn += 1
        self._in_flight += 1
        client.send(number, self._requests[number], since, keep=self.tally.wants(number))

    def _arrive(self, at: float, rate: float) -> None:
        """Let all that is due arrive: independent callers, so with exponential gaps.

        On Linux the loop wakes up to a millisecond late, which counts as latency. selectors.SelectSelector wouldn't,
        but took 10.5 % of a core where this takes 6.7 (600 requests/s, 60 in flight).
        """
        while at <= self._loop.time() and not self._stopping:
            self._due.append(at)
            if self._idle:
                self.give_work(self._idle.pop())
            elif self._open < self._stream.clients:
                self._connect_after(0)
            at += self._arrivals.expovariate(rate)
        if not self._stopping:
            self._loop.call_at(at, self._arrive, at, rate)

    def _connect_after(self, wait_s: float) -> None:
        self._open += 1
        task = self._loop.create_task(self._connect(wait_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if self._stopping and not self._due:
            return
        try:
            await self._loop.create_connection(lambda: Client(self), _HOST, self._port)
        except OSError:
            self._open -= 1
            self.tally.failed("unconnected")
            self._connect_after(_RETRY_S)


def _render(path: str, port: int, body: str) -> bytes:
    content = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def run(order: Order) -> Outcome:
    """Carry out an order. What is in flight at its end is waited for, so that the next run finds an idle server."""
    loop = asyncio.get_running_loop()
    senders = [Sender(stream, order, loop) for stream in order.streams]
    gc.collect()
    gc.freeze()
    gc.disable()
    began, cpu_s = loop.time(), time.process_time()
    limit = began + order.warm_s + order.seconds + order.patience_s
    for sender in senders:
        sender.start()
    await _until(lambda: all(sender.tally.is_over() for sender in senders) or loop.time() > limit)
    for sender in senders:
        sender.stop()
    await _until(lambda: not any(sender.waiting() for sender in senders) or loop.time() > limit)
    share = (time.process_time() - cpu_s) / (loop.time() - began)
    for sender in senders:
        if left := sender.waiting():
            sender.tally.failed("unanswered", count=left)
    return Outcome(figures=tuple(sender.tally.figure() for sender in senders), cpu_share=share)


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 — an event would be looked at upon every answer; this costs less
        await asyncio.sleep(_LOOK_S)


def main() -> None:
    """Read an order, carry it out, write the outcome."""
    order = Order.load(sys.stdin.read())
    sys.stdout.write(asyncio.run(run(order)).dump())


if __name__ == "__main__":
    main()
