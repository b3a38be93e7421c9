"""The access log: adds the headers that every response has, reports the request as an event, and logs one line.

Neither a text nor a key is logged.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from functools import cache, partial
from typing import Any

from litestar.types import HTTPScope
from opentelemetry.trace import Span, format_span_id, format_trace_id

from nearfar.core.caller import Caller
from nearfar.core.errors import EmptyInput, InputError, NearfarError
from nearfar.core.jobs import Timings
from nearfar.dialects.kit.request import request_id
from nearfar.dialects.kit.routing import installed_dialects
from nearfar.http.gate.cors import Origins
from nearfar.http.gate.drain import Drain
from nearfar.telemetry.events import Observer, RequestDone
from nearfar.telemetry.logs import RequestRecord
from nearfar.telemetry.masking import KeyMask
from nearfar.telemetry.tracing import METHODS, Tracing

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_PARAM = re.compile(r"[a-zA-Z_0-9.\[\]-]{1,60}")  # a field's path
_PLACE = re.compile(r"at `\$\.([^`]+)`$")  # in msgspec's messages
_WORD = re.compile(r"\w+")
_MAX_PATH, _MAX_METHOD = 200, 20  # characters in the log
_MAX_RECENT = 200  # requests
_log = logging.getLogger("nearfar.access")


class AccessLog:
    """Completes the head of each response, error responses included, and records the request."""

    def __init__(
        self, observe: Observer, tracing: Tracing | None, drain: Drain, origins: Origins, mask: KeyMask
    ) -> None:
        self.origins = origins
        self._mask = mask
        self._observe = observe
        self._drain = drain
        self._tracing = tracing
        self._recent: deque[RequestRecord] = deque(maxlen=_MAX_RECENT)

    def finish(self, scope: HTTPScope, status: int) -> list[tuple[bytes, bytes]]:
        """Record a request just before its response is sent. Returns the headers that every response has."""
        state: dict[str, Any] = scope["state"]
        event = _request_done(scope, status, time.perf_counter())
        headers = [(b"x-request-id", request_id(scope).encode())]
        if origin := state["headers"].get(b"origin"):
            headers += self.origins.response_headers(origin)
        span: Span | None = state.get("span")
        if span is None:
            parent = state["headers"].get(b"traceparent")
            client = _TRACEPARENT.fullmatch(parent) if parent else None
            trace_id = client[1].decode() if client else None
        else:
            context = span.get_span_context()
            trace_id = format_trace_id(context.trace_id)
            trace = f"00-{trace_id}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"
            headers.append((b"traceresponse", trace.encode()))  # W3C's Trace Context, level 3
        if self._drain.is_draining and scope["http_version"].startswith("1"):
            headers.append((b"connection", b"close"))
        self._observe(event)
        if self._tracing and span:
            self._tracing.finish_request(span, event, {"request_id": _id(state, self._mask), **state.get("done", {})})
        state.pop("body", None)  # the record is kept for a while
        record = RequestRecord(partial(_fields, scope, event, trace_id, self._mask))
        if scope["method"] == "POST":
            self._recent.append(record)
        if _log.isEnabledFor(logging.INFO):
            _log.handle(record)
        return headers

    def recent(self) -> list[dict[str, object]]:
        """Return the time and the log's fields of the last POST requests, newest first."""
        return [{"time": record.created, **record.fields} for record in reversed(self._recent)]


def _request_done(scope: HTTPScope, status: int, now: float) -> RequestDone:
    state: dict[str, Any] = scope["state"]
    timings: Timings | None = state.get("timings")
    options = getattr(scope.get("route_handler"), "opt", {})  # none where no route has the path
    return RequestDone(
        dialect=state.get("dialect") or options.get("dialect", "none"),
        route=scope.get("path_template") or "none",
        method=scope["method"] if scope["method"] in METHODS else "other",  # clients may send any word
        status=status,
        duration_s=now - state.get("began", now),  # 0 for a request that no route took: the gate didn't see it
        render_s=now - timings.taken_at if timings else None,
    )


def _fields(scope: HTTPScope, event: RequestDone, trace_id: str | None, key_mask: KeyMask) -> dict[str, object]:
    state, mask = scope["state"], key_mask.mask
    fields: dict[str, object] = {"request_id": _id(state, key_mask)}
    if trace_id:
        fields["trace_id"] = trace_id
    fields |= {
        "dialect": event.dialect,
        "method": method if (method := state.get("method", scope["method"])) in METHODS else mask(method, _MAX_METHOD),
        "path": path if (path := scope["path"]) == event.route else mask(path, _MAX_PATH),
        "status": event.status,
        "ms": round(event.duration_s * 1000, 1),
    }
    if error := state.get("error"):
        fields |= {"error": type(error).__name__, "reason": _reason(error)}
        if isinstance(error, InputError) and (field := _field(error)):
            fields["field"] = mask(field, _MAX_PATH)
    caller: Caller | None = state.get("caller")
    if caller:
        fields["key"] = caller.name  # the name of the key, never the key itself
    fields |= state.get("done", {})
    timings: Timings | None = state.get("timings")
    if timings and event.render_s is not None:
        fields["tokenize_ms"] = round(timings.tokenize_s * 1000, 1)
        fields["queue_ms"] = round(timings.queue_s * 1000, 1)
        fields["inference_ms"] = round(timings.inference_s * 1000, 1)
        fields["render_ms"] = round(event.render_s * 1000, 1)
    return fields


def _id(state: dict[str, Any], mask: KeyMask) -> str:
    """Return the request's id, where the client may have sent a key."""
    found: str = state["request_id"]
    return mask.mask_known(found) if b"x-request-id" in state["headers"] else found


def _reason(error: NearfarError) -> str:
    """Return why an error was raised, by its class: messages may repeat texts."""
    about = (type(error).__doc__ or "").partition(".")[0].partition("; ")[0]
    return " ".join(about.split()).removeprefix("Raised if ").replace("``", "")


def _field(error: InputError) -> str | None:
    """Return the field of the request that an error is about: its own, msgspec's, or one that its message names."""
    place = _PLACE.search(str(error.__cause__))
    if param := error.param or (place[1] if place else None):
        return param if _PARAM.fullmatch(param) else None
    if type(error) not in {InputError, EmptyInput}:  # the others aren't about one field
        return None
    return next((word for word in _WORD.findall(str(error)[:_MAX_PATH]) if word in _known_fields()), None)


@cache
def _known_fields() -> set[str]:
    """Return the fields of all documented bodies: other words of a message may be a client's."""
    routes = [route for dialect in installed_dialects() for route in dialect.routes]
    return {name for route in routes for name in getattr(route.docs.body, "__struct_encode_fields__", ())}
