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
_STATE: dict[str, Any] = {
    "name": _MODEL,
    "state": "loaded",
    "bytes": 90854912,
    "pin": False,
    "requests": 0,
    "closes_in_s": None,
}
_ABOUT: dict[str, Any] = {
    "aliases": [],
    "tasks": ["embed", "rank"],
    "source": "builtin",
    "revision": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "architecture": "BertModel",
    "engine": "torch",
    "device": "cpu",
    "dtype": "float32",
    "dtype_reason": "bfloat16 loses too much: cosine to float32 min 0.99987, mean 0.99995 on 12 probes",
    "dim": 384,
    "token_dim": 0,
    "vocabulary": 0,
    "labels": [],
    "max_tokens": 256,
    "pooling": "mean",
    "pooling_source": "1_Pooling/config.json",
    "normalized": True,
    "prompts": {},
    "prompts_source": "",
    "default_prompt": None,
    "score": "(1 + cosine) / 2 of the query's and the document's vectors",
    "score_is_probability": False,
    "int8_range": 0.204124,
    "parameters": 22713216,
    "file_bytes": 90868376,
    "created": 1795538604,
}
_TEI_INFO: dict[str, Any] = {
    "model_id": _MODEL,
    "model_sha": _ABOUT["revision"],
    "model_dtype": "float32",
    "served_model_name": _MODEL,
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_concurrent_requests": 2343,
    "max_input_length": 256,
    "max_batch_tokens": 4096,
    "max_batch_requests": None,
    "max_client_batch_size": 2048,
    "auto_truncate": True,
    "tokenization_workers": 2,
    "sha": None,
    "docker_label": None,
}
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

LIVE = route_docs("Report that the process runs", reply=Health, reply_example={"status": "live"}, raises=())
READY = route_docs(
    "Report whether the models can answer",
    reply=Health,
    reply_example={"status": "ready"},
    raises=(ModelNotReady, ShuttingDown),
)
INFO = route_docs(
    "Describe the served models",
    reply=(InfoReply, StartupInfoReply),
    reply_example={"name": "nearfar", "version": "0.1.0", "models": [{**_ABOUT, **_STATE}], **_TEI_INFO},
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
    reply_example={
        "model": _MODEL,
        "data": [{"index": 0, "dense": [0.1431, -0.0766, -0.0241]}],
        "usage": {"tokens": 7, "truncated_tokens": 0},
    },
)
LOAD = route_docs("Load a model", **_ADMIN, reply_example=_STATE)
UNLOAD = route_docs("Unload a model", **_ADMIN, reply_example={**_STATE, "state": "unloaded"})
