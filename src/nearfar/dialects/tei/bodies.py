"""The bodies of TEI's requests and answers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Struct

from nearfar.dialects.described import documented

_Some = documented(minItems=1)
Texts = str | Annotated[list[str], _Some]
Direction = Annotated[str, documented(enum=["Left", "left", "Right", "right"])]
Sequences = Annotated[list[str | Annotated[list[str], documented(minItems=1, maxItems=2)]], _Some]


class Sentences(Struct, kw_only=True):
    """One text, and those to compare it with."""

    source_sentence: str
    sentences: Annotated[list[str], _Some]


class Parameters(Struct, kw_only=True):
    """How texts are cut and prompted."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None


class SimilarityRequest(Struct, kw_only=True):
    """The body of POST /similarity. TEI serves one model, so ``model`` is ours: absent, it is the default one."""

    inputs: Sentences
    parameters: Parameters | None = None
    model: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class EmbedAllRequest(Struct, kw_only=True):
    """The body of POST /embed_all and /embed_sparse. The prompt ``query`` says that the texts are queries."""

    inputs: Texts
    truncate: bool | None = None
    prompt_name: str | None = None
    model: str | None = None


class PredictRequest(Struct, kw_only=True):
    """The body of POST /predict: a text, a list of one or two for a pair, or several of either, each in a list."""

    inputs: str | Sequences
    truncate: bool | None = None
    raw_scores: bool = False
    model: str | None = None


class SparseValue(Struct):
    """One weight of a text, and where in the vocabulary it stands."""

    index: int
    value: Annotated[msgspec.Raw, documented(type="number")]


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
