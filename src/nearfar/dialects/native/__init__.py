"""The server's own protocol: health, metrics, documentation, model information, several outputs, admin routes."""

from __future__ import annotations

from msgspec import Struct

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.native.documentation import manual, openapi, page
from nearfar.dialects.native.info import info
from nearfar.dialects.native.routes import LOAD, REPRESENT, UNLOAD, live, local_models, metrics, ready, recent_requests


class ErrorReply(Struct):
    """The body of every error: its class and a message."""

    error: str
    message: str


dialect = Dialect(
    name="native",
    handlers=[live, ready, info, metrics, recent_requests, local_models, openapi, manual, page],
    routes=[
        REPRESENT.route("/represent"),
        LOAD.route("/admin/models/load"),
        UNLOAD.route("/admin/models/unload"),
    ],
    render_error=lambda wire: ErrorReply(type(wire.error).__name__, wire.message),
    error_reply=ErrorReply,
    about="This server's own routes: health, metrics, documentation, model information, several outputs of one forward "
    "pass, loading and unloading models.",
    prefixes=("/",),
)
