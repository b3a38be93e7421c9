"""The bodies of Ollama's requests and answers. Null means absent; fields not named here are ignored."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from nearfar.core.errors import ModelRequired
from nearfar.dialects.kit.route_docs import NOT_EMPTY, NotBlank, Numbers, json_schema

_NOTHING = re.compile(r"0+(\.0+)?([a-zµ]+)?")  # "0", "0s", "0m"

KeepAlive = float | str


class Options(Struct, kw_only=True):
    """What of Ollama's options has a meaning here: ``num_ctx``, the most tokens of a text beside the special ones."""

    num_ctx: float | None = None  # JavaScript's and Lua's clients may say 512.0

    @property
    def max_tokens(self) -> int | None:
        """Give the caller's own limit, None where there is none."""
        return int(self.num_ctx) if self.num_ctx and self.num_ctx >= 1 else None


class EmbedRequest(Struct, kw_only=True):
    """The body of POST /api/embed.

    ``keep_alive`` of 0 with nothing to embed is an order to close the model. Otherwise it changes nothing: this server
    is for several programs, so how long a model stays is its operator's to say (``idle_s``, ``pin``).
    """

    model: str | None = None
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None


class EmbedReply(Struct, kw_only=True, omit_defaults=True):
    """The body of an answer, in the order of the request; durations are nanoseconds."""

    model: str
    embeddings: list[Numbers]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /api/embeddings, which Ollama has left for /api/embed."""

    model: str | None = None
    prompt: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive | None = None


class EmbeddingsReply(Struct):
    """The body of an answer: a unit vector, or an empty list for an empty prompt."""

    embedding: Numbers


class RerankRequest(Struct, kw_only=True):
    """The body of POST /api/rerank, which Ollama lacks: as in the changes that were proposed to it."""

    model: str | None = None
    query: NotBlank
    documents: Annotated[list[str], json_schema(minItems=1)]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None
    keep_alive: KeepAlive | None = None


class Document(Struct):
    """A document, told back."""

    text: str


class Result(Struct, omit_defaults=True):
    """One document's place; ``document`` only where it was asked for."""

    index: int
    relevance_score: float
    document: Document | msgspec.UnsetType = msgspec.UNSET


class RerankReply(Struct, kw_only=True):
    """The body of an answer, best first; durations are nanoseconds."""

    model: str
    results: list[Result]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class ModelRequest(Struct, kw_only=True):
    """The body of a request about a model, which older clients call ``name``."""

    model: str | None = None
    name: str | None = None


NAMED = ({"model": NOT_EMPTY}, {"name": NOT_EMPTY})


class WorkRequest(ModelRequest, kw_only=True):
    """The body of POST /api/generate and /api/chat, as far as it can be an order to close the model."""

    prompt: Annotated[str, json_schema(maxLength=0)] | None = None
    messages: Annotated[list[Any], json_schema(maxItems=0)] | None = None
    keep_alive: KeepAlive | None = None


class UnloadReply(Struct, kw_only=True):
    """What Ollama answers to an order to close a model."""

    model: str
    created_at: str
    response: str = ""
    done: bool = True
    done_reason: str = "unload"


class StatusReply(Struct):
    """The last line of a pull."""

    status: str


def named(model: str | None) -> str:
    """Give the model's name. Raises ModelRequired."""
    if not model:
        raise ModelRequired("model is required")
    return model


def is_nothing(keep_alive: KeepAlive | None) -> bool:
    """Tell whether the model is to be kept for no time at all."""
    if isinstance(keep_alive, str):
        return bool(_NOTHING.fullmatch(keep_alive))
    return keep_alive == 0
