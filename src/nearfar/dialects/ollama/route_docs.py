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
_TIME = "2026-11-24T16:00:00Z"
_DURATIONS = {"total_duration": 14143917, "load_duration": 1019500}
_VECTOR = [0.1431, -0.0766, -0.0241]
_DETAILS = {
    "parent_model": "",
    "format": "safetensors",
    "family": "bert",
    "families": ["bert"],
    "parameter_size": "22.71M",
    "quantization_level": "F32",
}
_LISTED: dict[str, Any] = {
    "name": f"{_MODEL}:latest",
    "model": f"{_MODEL}:latest",
    "size": 90868376,
    "digest": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "details": _DETAILS,
}
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
    "reply_example": {"model": _MODEL, "created_at": _TIME, "response": "", "done": True, "done_reason": "unload"},
    "counts": False,
}

EMBED = route_docs(
    "Embed texts, as in Ollama",
    body=requires(EmbedRequest, model=NOT_EMPTY),
    reply=EmbedReply,
    example={"model": _MODEL, "input": ["a cat on the sofa"]},
    reply_example={"model": _MODEL, "embeddings": [_VECTOR], **_DURATIONS, "prompt_eval_count": 7},
)
EMBEDDINGS = route_docs(
    "Embed one text, as older clients of Ollama do",
    body=requires(EmbeddingsRequest, model=NOT_EMPTY),
    reply=EmbeddingsReply,
    example={"model": _MODEL, "prompt": "a cat on the sofa"},
    reply_example={"embedding": _VECTOR},
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
    reply_example={
        "model": _MODEL,
        "results": [{"index": 1, "relevance_score": 0.83}],
        **_DURATIONS,
        "prompt_eval_count": 24,
    },
)
VERSION = route_docs(
    "Report the release of Ollama that the routes follow",
    reply=VersionReply,
    reply_example={"version": OLLAMA_VERSION, "server": "nearfar 0.1.0"},
)
TAGS = route_docs(
    "List the served models",
    reply=TagsReply,
    reply_example={"models": [_LISTED | {"modified_at": _TIME}]},
    raises=(ModelNotReady,),
)
PS = route_docs(
    "List the models in memory",
    reply=PsReply,
    reply_example={"models": [_LISTED | {"expires_at": "2026-11-24T16:05:00Z", "size_vram": 0, "context_length": 256}]},
)
SHOW = route_docs(
    "Describe a model",
    **_BY_NAME,
    reply=ShowReply,
    reply_example={
        "modelfile": f"FROM {_MODEL}",
        "parameters": "num_ctx                        256",
        "template": "{{ .Prompt }}",
        "license": "",
        "details": _DETAILS,
        "model_info": {"general.architecture": "bert", "bert.context_length": 256, "bert.embedding_length": 384},
        "capabilities": ["embedding", "rerank"],
        "modified_at": _TIME,
    },
)
PULL = route_docs("Check that a model is served", **_BY_NAME, reply=StatusReply, reply_example={"status": "success"})
GENERATE = route_docs("Unload a model; generation is not supported", **_UNLOAD)
CHAT = route_docs("Unload a model; chat is not supported", **_UNLOAD)
