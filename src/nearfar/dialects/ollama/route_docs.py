"""The OpenAPI documentation of Ollama's routes."""

from __future__ import annotations

from typing import Any

from nearfar.core.errors import ModelNotReady
from nearfar.dialects.kit.route_docs import NOT_EMPTY, requires, requires_any, route_docs
from nearfar.dialects.ollama.bodies import (
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedReply,
    EmbedRequest,
    GenerateRequest,
    ModelRequest,
    PsReply,
    RerankReply,
    RerankRequest,
    ShowReply,
    StatusReply,
    TagsReply,
    UnloadReply,
    VersionReply,
)

# The release of Ollama that the routes follow. Clients read it to find out whether /api/embed exists (0.3) and accepts
# dimensions; a version number of this server would look like an Ollama without both.
OLLAMA_VERSION = "0.13.0"
_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_BY_NAME: dict[str, Any] = {
    "body": requires_any(ModelRequest, {"model": NOT_EMPTY}, {"name": NOT_EMPTY}),
    "example": {"model": _MODEL},
    "counts": False,
}
_UNLOAD: dict[str, Any] = {
    "body": requires_any(
        requires(GenerateRequest, keep_alive={"enum": [0, "0", "0s", "0m"]}), {"model": NOT_EMPTY}, {"name": NOT_EMPTY}
    ),
    "reply": UnloadReply,
    "example": {"model": _MODEL, "keep_alive": 0},
    "counts": False,
}

EMBED = route_docs(
    "Embed texts, as in Ollama",
    body=requires(EmbedRequest, model=NOT_EMPTY),
    reply=EmbedReply,
    example={"model": _MODEL, "input": ["a cat on the sofa"]},
)
EMBEDDINGS = route_docs(
    "Embed one text, as older clients of Ollama do",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": _MODEL, "prompt": "a cat on the sofa"},
)
RERANK = route_docs(
    "Rank documents by relevance to a query, an addition to Ollama's routes",
    body=requires(RerankRequest, model=NOT_EMPTY),
    reply=RerankReply,
    example={
        "model": _MODEL,
        "query": "Where is the cat?",
        "documents": ["Bananas are yellow.", "The cat sat on the mat."],
        "top_n": 1,
    },
)
VERSION = route_docs(
    "Report the release of Ollama that the routes follow",
    reply=VersionReply,
    reply_example={"version": OLLAMA_VERSION, "server": "nearfar 0.1.0"},
)
TAGS = route_docs("List the served models", reply=TagsReply, raises=(ModelNotReady,))
PS = route_docs("List the models in memory", reply=PsReply)
SHOW = route_docs("Describe a model", **_BY_NAME, reply=ShowReply)
PULL = route_docs("Check that a model is served", **_BY_NAME, reply=StatusReply, reply_example={"status": "success"})
GENERATE = route_docs("Unload a model; generation is not supported", **_UNLOAD)
CHAT = route_docs("Unload a model; chat is not supported", **_UNLOAD)
