"""The bodies of TEI's requests and answers."""

from __future__ import annotations

from msgspec import Struct


class Sentences(Struct, kw_only=True):
    """One text, and those to compare it with."""

    source_sentence: str
    sentences: list[str]


class Parameters(Struct, kw_only=True):
    """How texts are cut and prompted."""

    truncate: bool | None = None
    truncation_direction: str | None = None
    prompt_name: str | None = None


class SimilarityRequest(Struct, kw_only=True):
    """The body of POST /similarity. TEI serves one model, so ``model`` is ours: absent, it is the default one."""

    inputs: Sentences
    parameters: Parameters | None = None
    model: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class EmbedAllRequest(Struct, kw_only=True):
    """The body of POST /embed_all and /embed_sparse. The prompt ``query`` says that the texts are queries."""

    inputs: str | list[str]
    truncate: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class PredictRequest(Struct, kw_only=True):
    """The body of POST /predict: a text, a list of one or two for a pair, or several of either, each in a list."""

    inputs: str | list[str | list[str]]
    truncate: bool | None = None
    raw_scores: bool = False
    model: str | None = None


class Prediction(Struct):
    """One label of a text."""

    score: float
    label: str


class Token(Struct):
    """One token of a text; special ones lie nowhere."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None
