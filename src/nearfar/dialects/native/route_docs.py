"""The OpenAPI documentation of the server's own routes."""

from __future__ import annotations

from typing import Any

from nearfar.core.errors import (
    BodyTooLarge,
    InputError,
    InternalError,
    MalformedBody,
    ModelNotFound,
    ModelNotReady,
    PathNotFound,
    ShuttingDown,
)
from nearfar.core.types import ModelState
from nearfar.dialects.kit.route_docs import RouteDocs, route_docs
from nearfar.dialects.native.bodies import (
    Health,
    InfoReply,
    ModelRequest,
    RepresentReply,
    RepresentRequest,
    StartupInfoReply,
)

_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_ADMIN: dict[str, Any] = {
    "body": ModelRequest,
    "reply": ModelState,
    "example": {"model": _MODEL},
    "counts": False,
    "raises": (InputError, MalformedBody, BodyTooLarge, ModelNotFound, ModelNotReady, ShuttingDown, InternalError),
}
_HTML: dict[str, Any] = {
    "media_type": "text/html",
    "headers": {"content-security-policy": "Forbids everything but the page's own style"},
}

LIVE = route_docs("Report that the process runs", reply=Health, raises=())
READY = route_docs(
    "Report whether the models can answer",
    reply=Health,
    reply_example={"status": "ready"},
    raises=(ModelNotReady, ShuttingDown),
)
INFO = route_docs(
    "Describe the served models",
    reply=(InfoReply, StartupInfoReply),
    reply_example={"name": "nearfar", "model_type": {"embedding": {"pooling": "mean"}}},
)
OPENAPI = route_docs("Return this document", reply=dict[str, Any], raises=())
DOCS = route_docs("Return this document as a page", **_HTML, raises=())
MANUAL = route_docs("List the manual's pages", **_HTML, raises=())
MANUAL_PAGE = route_docs("Return a page of the manual", **_HTML, path={"page": "api"}, raises=(PathNotFound,))
METRICS = route_docs("Return the metrics for Prometheus", media_type="text/plain")
REPRESENT = RouteDocs(
    summary="Return all outputs of a model for texts",
    details="One forward pass computes all of them: dense, multi-vector and sparse.",
    body=RepresentRequest,
    reply=RepresentReply,
    example={"input": ["a cat on the sofa"], "input_type": "document"},
    reply_example={"data": [{"index": 0, "dense": [0.1431, -0.0766, -0.0241]}]},
)
LOAD = route_docs("Load a model", **_ADMIN)
UNLOAD = route_docs("Unload a model", **_ADMIN, reply_example={"state": "unloaded"})
