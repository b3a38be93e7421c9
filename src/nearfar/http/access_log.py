"""What is noted of each answered request: headers, a line in the log, a record. Never its text, never a key."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from opentelemetry.trace import format_span_id, format_trace_id

from nearfar.dialects.kit.request import request_id
from nearfar.telemetry.events import RequestRecord

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

    from nearfar.core.caller import Caller
    from nearfar.core.jobs import Timings
    from nearfar.http.drain import Drain
    from nearfar.http.tracing import Tracing
    from nearfar.telemetry.events import Observer

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_log = logging.getLogger(__name__)


class Clock(ASGIMiddleware):
    """Notes when a request began."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on."""
        scope["state"]["began"] = time.perf_counter()
        await next_app(scope, receive, send)


class Access:
    """Signs answers with the request's id, and its place in a trace where it is traced, and notes them."""

    def __init__(self, observer: Observer, tracing: Tracing | None, drain: Drain) -> None:
        self._observer = observer
        self._drain = drain
        self._tracing = tracing

    async def sign(self, message: Message, scope: Scope) -> None:
        """Take the message with an answer's head, errors too. Litestar lets it see every message on its way out."""
        if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP:
            return
        now = time.perf_counter()
        said = request_id(scope)
        record = _record(scope, message["status"], now)
        self._observer.request_done(record)
        if self._tracing:
            self._tracing.answered(scope, record)
        trace_id, trace = _trace(scope)
        last = [(b"connection", b"close")] if self._drain.is_draining and scope["http_version"].startswith("1") else []
        message["headers"] = [*message["headers"], (b"x-request-id", said.encode()), *trace, *last]
        _log.info("request", extra={"fields": _fields(scope, record, said, trace_id)})


def _record(scope: HTTPScope, status: int, now: float) -> RequestRecord:
    state: dict[str, Any] = scope["state"]
    timings: Timings | None = state.get("timings")
    ours: dict[str, Any] = getattr(scope.get("route_handler"), "opt", {})  # none where no route took it
    method = scope["method"]
    return RequestRecord(
        dialect=state.get("dialect") or ours.get("dialect", "none"),
        route=scope.get("path_template") or "none",
        method=method if method in _METHODS else "other",  # callers may invent as many as they like
        status=status,
        seconds=now - state.get("began", now),  # a request that no route took has no beginning, and takes no time
        render_s=now - timings.taken_at if timings else None,
    )


def _trace(scope: Scope) -> tuple[str | None, list[tuple[bytes, bytes]]]:
    """Give the id of the trace that the request belongs to, be it the caller's alone, and the headers that tell it."""
    span = scope["state"].get("span")
    if span is None:
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        theirs = _TRACEPARENT.fullmatch(given)
        return theirs[1].decode() if theirs else None, []
    where = span.get_span_context()
    trace_id = format_trace_id(where.trace_id)
    value = f"00-{trace_id}-{format_span_id(where.span_id)}-{where.trace_flags:02x}"
    return trace_id, [(b"traceresponse", value.encode())]  # W3C's Trace Context, level 3


def _fields(scope: HTTPScope, record: RequestRecord, said: str, trace_id: str | None) -> dict[str, object]:
    state: dict[str, Any] = scope["state"]
    caller: Caller | None = state.get("caller")
    fields: dict[str, object] = {
        "request_id": said,
        **({"trace_id": trace_id} if trace_id else {}),
        "dialect": record.dialect,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": record.status,
        "ms": _ms(record.seconds),
        **({"key": caller.name} if caller else {}),  # the name that it was given, never the key itself
        **state.get("done", {}),
    }
    timings: Timings | None = state.get("timings")
    if timings and record.render_s is not None:
        fields["tokenise_ms"] = _ms(timings.tokenise_s)
        fields["queue_ms"] = _ms(timings.queue_s)
        fields["run_ms"] = _ms(timings.run_s)
        fields["render_ms"] = _ms(record.render_s)
    return fields


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
