"""The house's own words for a request and its answer. Knows no dialect, no engine and no HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from nearfar.core.settings import OnOverflow
from nearfar.core.types import Keep, Output, Representation, Role, TokenIds

if TYPE_CHECKING:
    from nearfar.core.types import FloatArray  # noqa: TC004 — is there for type checkers only, and nothing encodes an answer


class Ceiling(Struct, frozen=True, kw_only=True):
    """A protocol's own limits on tokens. Going over them is always an error, never a cut."""

    tokens_each: int
    tokens_together: int


class EmbedJob(Struct, frozen=True, kw_only=True):
    """Texts to turn into vectors.

    ``model`` is a served name, an alias or a vendor's name; None means the default embedding model.
    Token ids among ``inputs`` belong to ``vocabulary``, one of OpenAI's, or None for the model's own, and stand for the
    text they decode to, of the model's own without special tokens.
    ``prompt`` names one of the model's prompts, and ``role`` says what the texts are where the dialect knows.
    ``max_tokens`` is the caller's own limit on each text. A text over that or the model's limit keeps its ``keep``, or
    is refused if ``on_overflow`` says so; None leaves that to the model's setting. ``instruction`` is the caller's own,
    for models that take one before queries. ``normalize`` asks for vectors of unit length, or for those that the model
    has before it makes them so; None leaves that to the model. With ``late_chunking`` the inputs are parts of one text,
    which is read whole, and each part's vector is the mean over its own tokens.
    """

    model: str | None
    inputs: tuple[str | TokenIds, ...]
    dimensions: int | None = None
    role: Role | None = None
    prompt: str | None = None
    vocabulary: str | None = "cl100k_base"
    ceiling: Ceiling | None = None
    max_tokens: int | None = None
    keep: Keep = "start"
    on_overflow: OnOverflow | None = None
    instruction: str | None = None
    normalize: bool | None = None
    late_chunking: bool = False


class RepresentJob(Struct, frozen=True, kw_only=True):
    """Texts of which all is wanted that the model makes of them; ``outputs`` name what must be among that.

    Token ids among ``inputs`` are the model's own. ``keep`` and ``on_overflow`` as in EmbedJob.
    """

    model: str | None
    inputs: tuple[str | TokenIds, ...]
    outputs: tuple[Output, ...] = ()
    role: Role | None = None
    prompt: str | None = None
    keep: Keep = "start"
    on_overflow: OnOverflow | None = None


class ClassifyJob(Struct, frozen=True, kw_only=True):
    """Texts, or pairs of texts, to label. Of an over-long pair it is the second text whose ``keep`` is kept."""

    model: str | None
    inputs: tuple[str | tuple[str, str], ...]
    raw_scores: bool = False
    keep: Keep = "start"
    on_overflow: OnOverflow | None = None


class RankJob(Struct, frozen=True, kw_only=True):
    """A query and the documents to sort by how well they answer it.

    ``raw_scores`` asks for the logit of a model that scores pairs, and the cosine of one that embeds. ``instruction``
    says in a sentence what is looked for, to a model that can be told; None leaves that to the model.
    ``max_tokens_per_document`` cuts documents to begin with. What is then too long for the model beside the query keeps
    its ``keep``, or is refused if ``on_overflow`` says "error", as is what the caller's own limit cuts. With
    ``max_chunks_per_document`` it is first split into up to so many chunks, which follow one another without overlap,
    each as much as fits; the document's score is that of its best chunk.
    """

    model: str | None
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    max_tokens_per_document: int | None = None
    max_chunks_per_document: int | None = None
    keep: Keep = "start"
    on_overflow: OnOverflow | None = None
    raw_scores: bool = False
    instruction: str | None = None


class ScoreJob(Struct, frozen=True, kw_only=True):
    """Pairs of a query and a document to compare, each by itself: nothing is sorted.

    A model that embeds gives the cosine; ``raw_scores`` asks for the logit of one that scores pairs.
    """

    model: str | None
    pairs: tuple[tuple[str, str], ...]
    max_tokens_per_document: int | None = None
    raw_scores: bool = False


class TokenizeJob(Struct, frozen=True, kw_only=True):
    """Texts to show as the model reads them, with the special tokens around them or without.

    None for ``model`` means the default embedding model, or else the default reranker.
    """

    model: str | None
    texts: tuple[str, ...]
    special: bool
    prompt: str | None = None


class DetokenizeJob(Struct, frozen=True, kw_only=True):
    """Token ids of the model's own vocabulary to turn into text; ``model`` as in TokenizeJob.

    ``special`` shows the special tokens among them by their names, or leaves them out.
    """

    model: str | None
    ids: TokenIds
    special: bool = True


class Timings(Struct, frozen=True, kw_only=True):
    """How long a job took, from when its model was there, in seconds.

    ``tokenise_s`` passed until its rows were in the queue, then ``queue_s`` until the first batch with some of them
    began, and then ``run_s`` until the last one ended, with whatever the engine did for others in between.
    ``taken_at`` is when that was told, by ``time.perf_counter``.
    """

    taken_at: float
    total_s: float
    tokenise_s: float
    queue_s: float
    run_s: float


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the model counted them. ``tokens`` went through the model; ``truncated_tokens`` were cut off before.

    ``each`` says both of every row that went through, in their order: of a job that embeds, its texts.
    """

    tokens: int
    truncated_tokens: int
    each: tuple[tuple[int, int], ...] = ()


class Embedded(Struct, frozen=True, kw_only=True):
    """The answer to an EmbedJob: ``vectors`` is (B, D) float32 and row i answers input i.

    ``int8_range`` is the R by which vectors of this model and length are made into bytes; None where none is known.
    """

    model: str
    vectors: FloatArray
    usage: Usage
    timings: Timings
    int8_range: float | None


class Represented(Struct, frozen=True, kw_only=True):
    """The answer to a RepresentJob, in the order of its inputs."""

    model: str
    texts: tuple[Representation, ...]
    usage: Usage
    timings: Timings


class Classified(Struct, frozen=True, kw_only=True):
    """The answer to a ClassifyJob: ``scores`` is (B, labels), probabilities unless logits were asked for."""

    model: str
    labels: tuple[str, ...]
    scores: FloatArray
    usage: Usage
    timings: Timings


class RankedDocument(Struct, frozen=True):
    """One document's place: ``index`` into the job's documents, ``score`` in [0, 1] unless a raw one was asked for."""

    index: int
    score: float


class Ranked(Struct, frozen=True, kw_only=True):
    """The answer to a RankJob, best first; equal scores keep the order of the request.

    ``document_tokens`` are those of the query with each of the job's documents, in the job's order, before anything was
    cut; a lower bound for texts of over 100,000 characters. ``usage`` counts every chunk that was read.
    """

    model: str
    results: tuple[RankedDocument, ...]
    document_tokens: tuple[int, ...]
    usage: Usage
    timings: Timings


class Scored(Struct, frozen=True, kw_only=True):
    """The answer to a ScoreJob: one score a pair, in the job's order."""

    model: str
    scores: tuple[float, ...]
    usage: Usage
    timings: Timings


class Piece(Struct, frozen=True):
    """One token of a text: its id, its name in the vocabulary, and the characters it stands for.

    A special token stands for none, and has ``start`` and ``stop`` at 0.
    """

    id: int
    token: str
    special: bool
    start: int
    stop: int


class TokenizedText(Struct, frozen=True):
    """A text, with its prompt, and its tokens in order."""

    text: str
    pieces: tuple[Piece, ...]


class Tokenized(Struct, frozen=True, kw_only=True):
    """The answer to a TokenizeJob. Nothing is cut; ``max_tokens`` is what the model would take."""

    model: str
    texts: tuple[TokenizedText, ...]
    max_tokens: int
