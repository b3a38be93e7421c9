"""The bodies of Ollama's requests and answers. Null means absent; unknown fields are ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.errors import ModelRequired
from nearfar.dialects.kit.route_docs import NotBlank, Numbers, json_schema

_ZERO_DURATION = re.compile(r"0+(\.0+)?([a-zµ]+)?")  # "0", "0s", "0m"

KeepAlive = float | str


class Options(Struct, kw_only=True):
    """The only one of Ollama's options that has an effect: the most tokens of a text, special tokens not counted."""

    num_ctx: float | None = None  # clients in JavaScript and Lua may send 512.0


class TextRequest(Struct, kw_only=True):
    """What requests for embeddings have in common.

    ``keep_alive`` of 0 without input unloads the model. Otherwise it has no effect: several programs share this
    server, so its settings ``idle_timeout_s`` and ``pin`` decide how long a model stays.
    """

    model: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None

    @property
    def max_tokens(self) -> int | None:
        """Return the caller's limit of a text's tokens, or None."""
        num_ctx = self.options and self.options.num_ctx
        return int(num_ctx) if num_ctx and num_ctx >= 1 else None


class EmbedRequest(TextRequest, kw_only=True):
    """The body of POST /api/embed."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class EmbedReply(Struct, kw_only=True, omit_defaults=True):
    """The body of an answer to /api/embed. Durations are in nanoseconds."""

    model: str
    embeddings: list[Numbers]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsRequest(TextRequest, kw_only=True):
    """The body of POST /api/embeddings, the older form of /api/embed."""

    prompt: str | None = None


class EmbeddingsReply(Struct):
    """The body of an answer to /api/embeddings: a unit vector, or an empty list for an empty prompt."""

    embedding: Numbers


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/rerank, as in the changes proposed to Ollama, which has no such route."""

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[str], json_schema(minItems=1)]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    keep_alive: KeepAlive | None = None


class Document(Struct):
    """A document of the request."""

    text: str


class RerankResult(Struct, omit_defaults=True):
    """A document's index and score; with ``return_documents`` also the document."""

    index: int
    relevance_score: float
    document: Document | msgspec.UnsetType = msgspec.UNSET


class RerankReply(Struct, kw_only=True):
    """The body of an answer to /api/rerank, best first. Durations are in nanoseconds."""

    model: str
    results: list[RerankResult]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class ModelRequest(Struct, kw_only=True):
    """The body of a request about a model; older clients send ``name``."""

    model: str | None = None
    name: str | None = None


class GenerateRequest(ModelRequest, kw_only=True):
    """The body of POST /api/generate and /api/chat, as far as it can unload a model."""

    prompt: Annotated[str, json_schema(maxLength=0)] | None = None
    messages: Annotated[list[Any], json_schema(maxItems=0)] | None = None
    keep_alive: KeepAlive | None = None


class UnloadReply(Struct, kw_only=True):
    """The body of the answer to a request that unloads a model."""

    model: str
    created_at: str
    response: str = ""
    done: bool = True
    done_reason: str = "unload"


class StatusReply(Struct):
    """The last line of the answer to a pull."""

    status: str


class VersionReply(Struct):
    """The body of GET /api/version: the release of Ollama that the routes follow, and this server's own version."""

    version: str
    server: str


class Details(Struct, kw_only=True):
    """A model's format, architecture, size and precision."""

    parent_model: str = ""
    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Struct, kw_only=True):
    """A served model. ``digest`` is a hash of its name and revision, ``size`` its bytes on disk."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagsReply(Struct):
    """The body of GET /api/tags."""

    models: list[ListedModel]


class LoadedModel(Struct, kw_only=True):
    """A model in memory. ``size_vram`` is its size if it runs on a GPU, otherwise 0."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class PsReply(Struct):
    """The body of GET /api/ps."""

    models: list[LoadedModel]


class ShowReply(Struct, kw_only=True):
    """The body of POST /api/show."""

    modelfile: str
    parameters: str
    template: str = "{{ .Prompt }}"
    license: str = ""  # none of the files that are read names it
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


def require_model(model: str | None) -> str:
    """Return the model's name. Raises ModelRequired if there is none."""
    if not model:
        raise ModelRequired("model is required")
    return model


def is_zero(keep_alive: KeepAlive | None) -> bool:
    """Return whether the model is to be unloaded at once."""
    if isinstance(keep_alive, str):
        return bool(_ZERO_DURATION.fullmatch(keep_alive))
    return keep_alive == 0
