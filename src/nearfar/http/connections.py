"""The open connections: how long each is idle, how fast its client reads answers, and which to close.

Granian limits the time for the head of an HTTP/1 request. It has no limit for a connection that hasn't shown its
protocol yet, for HTTP/2, and for answers that wait to be read. No sockets here: the process closes the connections.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any, TypeAlias, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from nearfar.core.settings import Settings
from nearfar.serving.answers import UnreadAnswers
from nearfar.serving.uploads import Uploads
from nearfar.telemetry.events import CloseReason, ConnectionClosed, Observer

Peer: TypeAlias = tuple[str, str]  # a client's address and port, as granian writes them

_PART = 131_072  # bytes of an answer that are sent at once; smaller parts cost more time
# Granian takes up to 5 messages ahead of what a connection has sent. The last bytes of an answer are sent one by one:
# once they are taken, all others have been sent.
_LAST = 8
# Larger answers are sent in parts. On HTTP/2 each of a connection's streams may have an answer that isn't read.
_SENT_WHOLE = {"2": 4096}
# Answers that are younger or read faster are never too slow, and connections that are idle for less never too many.
# Guesses.
_SLOW_S, _MIN_BYTES_PER_S, _IDLE_S = 1.0, 262_144, 1.0
# Of the limit: idle connections are closed before others have to wait.
_FULL, _ROOMY = 0.9, 0.5
_ERROR, _CLOSE = 400, (b"connection", b"close")


class _Connection:
    """One open connection. ``answered`` counts requests, and ``noted`` is its value when it was last looked at."""

    __slots__ = ("answered", "idle_since", "in_flight", "is_late", "noted")

    def __init__(self, now: float) -> None:
        self.in_flight = self.answered = self.noted = 0
        self.idle_since = now
        self.is_late = False


class _Answer:
    """An answer that is being sent in parts."""

    __slots__ = ("began", "client", "progressed", "sent", "size")

    def __init__(self, client: Peer, size: int, now: float) -> None:
        self.client = client
        self.size = size
        self.sent = 0
        self.began = self.progressed = now


class Connections:
    """Counts the connections that enter ``app``, and sends large answers in parts, no faster than they are read.

    ``limit`` is the most connections that may be open; the process sets it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 — each is another part of the server
        self,
        app: ASGIApp,
        settings: Settings,
        observe: Observer,
        unread: UnreadAnswers,
        uploads: Uploads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = sys.maxsize
        self.unread = unread
        self._uploads = uploads
        self._app = app
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._open: dict[Peer, _Connection] = {}
        self._answers: set[_Answer] = set()

    def counts(self) -> dict[str, int]:
        """Return what metrics show."""
        return {"connections": len(self._open), "unread_bytes": self.unread.unread_bytes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client: Any = scope.get("client")
        connection = self._open.get(client)
        if connection is None:
            connection = self._open[client] = _Connection(self._clock())
        whole = _SENT_WHOLE.get(scope.get("http_version", ""), _PART)

        def send_in_parts(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.body":
                if len(message["body"]) > whole:
                    return self._send_body(client, send, message)
            elif message["type"] == "http.response.start" and message["status"] >= _ERROR:
                connection.is_late = _CLOSE in message["headers"]
            return send(message)

        connection.in_flight += 1
        try:
            await self._app(scope, receive, send_in_parts)
        finally:
            connection.in_flight -= 1
            connection.answered += 1

    async def _send_body(self, client: Peer, send: Send, message: Any) -> None:
        """Send a body in parts. Granian delays each until the connection has sent those before."""
        body: bytes = message["body"]
        answer = _Answer(client, len(body), self._clock())
        self._answers.add(answer)
        self.unread.add(answer.size)
        try:
            for part in _parts(body):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                answer.sent += len(part)
                answer.progressed = self._clock()
        finally:
            self._answers.discard(answer)
            self.unread.add(-answer.size)
        await send(cast("Message", {**message, "body": b""}))

    def find_overdue(self, peers: AbstractSet[Peer]) -> dict[Peer, CloseReason]:
        """Return the connections to close, of the ``peers`` that are connected. To be called every second at least."""
        now = self._clock()
        self._note(peers, now)
        overdue: dict[Peer, CloseReason] = {}
        for peer, connection in self._open.items():
            if not connection.in_flight and connection.is_late and connection.idle_since < now:
                overdue[peer] = "late_body"
            elif not connection.in_flight and now - connection.idle_since > self._settings.keep_alive_timeout_s:
                overdue[peer] = "idle"
        overdue |= dict.fromkeys(self._unread(now), "unread")
        overdue |= dict.fromkeys(self._excess(overdue.keys(), now), "limit")
        for reason in overdue.values():
            self._observe(ConnectionClosed(reason=reason))
        return overdue

    def _note(self, peers: AbstractSet[Peer], now: float) -> None:
        """Add new connections, remove closed ones, and update those that have had a request since."""
        for peer in self._open.keys() - peers:
            if not self._open[peer].in_flight:
                del self._open[peer]
        for peer in peers - self._open.keys():
            self._open[peer] = _Connection(now)
        for connection in self._open.values():
            if connection.in_flight or connection.answered != connection.noted:
                connection.noted = connection.answered
                connection.idle_since = now

    def _unread(self, now: float) -> Iterator[Peer]:
        """Yield clients that don't read their answers; the slowest too, while others wait for room."""
        excess = self.unread.unread_bytes - self.unread.max_bytes
        for answer in sorted(self._answers, key=lambda answer: answer.sent / (now - answer.began + 1e-9)):
            age_s = now - answer.began
            stalled_s = now - answer.progressed
            is_slow = stalled_s > _SLOW_S or (age_s > _SLOW_S and answer.sent < age_s * _MIN_BYTES_PER_S)
            if stalled_s > self._settings.write_timeout_s or (excess > 0 and is_slow):
                excess -= answer.size
                yield answer.client

    def _excess(self, overdue: AbstractSet[Peer], now: float) -> list[Peer]:
        """Return idle connections to make room: those without a request yet first, then the longest idle.

        Where they are too few, slow uploads get a 408, which ends their connections.
        """
        if len(self._open) - len(overdue) <= self.limit * _FULL:
            return []
        idle = [
            (connection.answered > 0, connection.idle_since, peer)
            for peer, connection in self._open.items()
            if not connection.in_flight and now - connection.idle_since > _IDLE_S and peer not in overdue
        ]
        excess = len(self._open) - len(overdue) - int(self.limit * _ROOMY)
        self._uploads.end_slow(max(excess - len(idle), 0))
        return [peer for *_, peer in sorted(idle, key=itemgetter(0, 1))[:excess]]


def _parts(body: bytes) -> Iterator[bytes]:
    last = len(body) - _LAST
    for at in range(0, last, _PART):
        yield body[at : min(at + _PART, last)]
    for at in range(last, len(body)):
        yield body[at : at + 1]
