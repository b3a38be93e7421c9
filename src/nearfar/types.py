"""The house's own words for a request, an answer and a model. Knows no dialect, no engine and no HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray: TypeAlias = npt.NDArray[np.float32]

Task = Literal["embed", "rank"]
TokenIds: TypeAlias = tuple[int, ...]
Role = Literal["query", "document"]


class Ceiling(Struct, frozen=True, kw_only=True):
    """A protocol's own limits on tokens. Going over them is always an error, never a cut."""

    tokens_each: int
    tokens_together: int


class EmbedJob(Struct, frozen=True, kw_only=True):
    """Texts to turn into vectors.

    ``model`` is a served name, an alias or a vendor's name; None means the default embedding model.
    Token ids among ``inputs`` belong to ``vocabulary``, one of OpenAI's, and stand for the text they decode to.
    ``prompt`` names one of the model's prompts, and ``role`` says what the texts are where the dialect knows.
    """

    model: str | None
    inputs: tuple[str | TokenIds, ...]
    dimensions: int | None = None
    role: Role | None = None
    prompt: str | None = None
    vocabulary: str = "cl100k_base"
    ceiling: Ceiling | None = None


class RankJob(Struct, frozen=True, kw_only=True):
    """A query and the documents to sort by how well they answer it.

    ``instruction`` says in a sentence what is looked for, to a model that can be told; None leaves that to the model.
    """

    model: str | None
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    max_tokens_per_document: int | None = None
    instruction: str | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the model counted them. ``tokens`` went through the model; ``truncated_tokens`` were cut off before."""

    tokens: int
    truncated_tokens: int


class Embedded(Struct, frozen=True, kw_only=True):
    """The answer to an EmbedJob: ``vectors`` is (B, D) float32 and row i answers input i."""

    model: str
    vectors: FloatArray
    usage: Usage


class RankedDocument(Struct, frozen=True):
    """One document's place: ``index`` into the job's documents, ``score`` in [0, 1]."""

    index: int
    score: float


class Ranked(Struct, frozen=True, kw_only=True):
    """The answer to a RankJob, best first; equal scores keep the order of the request."""

    model: str
    results: tuple[RankedDocument, ...]
    usage: Usage


class ModelInfo(Struct, frozen=True, kw_only=True):
    """All that is true of one served model; what ``/info`` shows.

    ``dim`` is 0 for a cross-encoder. ``score`` says how a relevance score comes about.
    """

    name: str
    aliases: tuple[str, ...]
    tasks: tuple[Task, ...]
    source: str
    revision: str | None
    architecture: str
    engine: str
    device: str
    dtype: str
    dtype_reason: str
    dim: int
    max_tokens: int
    pooling: str
    pooling_source: str
    normalized: bool
    prompts: dict[str, str]
    default_prompt: str | None
    score: str
    created: int
