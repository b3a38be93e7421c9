"""The bodies of vLLM's requests and answers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Texts = str | list[str]


class ScoreRequest(Struct, kw_only=True):
    """The body of POST /score, in any of its four spellings. Null means absent; fields not named here are ignored.

    ``activation`` is what older versions call ``use_activation``.
    """

    model: str | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=0)] | None = None
    truncate_prompt_tokens: int | None = None


class ClassifyRequest(Struct, kw_only=True):
    """The body of POST /classify."""

    model: str | None = None
    input: Texts
    use_activation: bool | None = None
    activation: bool | None = None


class PoolingRequest(Struct, kw_only=True):
    """The body of POST /pooling, for the vectors of a text's tokens."""

    model: str | None = None
    input: Texts
    task: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize for a plain prompt."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


class Score(Struct):
    """One pair's score."""

    index: int
    object: str
    score: float


class Tokens(Struct):
    """Tokens that went through the model."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: None = None


class ScoreReply(Struct, kw_only=True):
    """The body of an answer, in the order of the request."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Score]
    usage: Tokens


class Class(Struct):
    """One text's labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Pooled(Struct):
    """One text's vectors."""

    index: int
    data: msgspec.Raw
    object: str = "pooling"


class ListReply(Struct, kw_only=True):
    """The body of an answer to /classify and /pooling, in the order of the request."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Class] | list[Pooled]
    usage: Tokens


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the vocabulary's names, null unless asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
