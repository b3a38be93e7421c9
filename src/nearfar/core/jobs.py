"""Jobs and their results: what a request asks for and what it gets, in terms of no particular protocol."""

from __future__ import annotations

from msgspec import Struct

from nearfar.core.settings import OnOverflow
from nearfar.core.types import FloatArray, KeepSide, ModelInfo, Output, Representation, Role, TokenIds


class TokenLimits(Struct, frozen=True, kw_only=True):
    """A protocol's limits on a request. Exceeding one is always an error, never a truncation.

    They apply for a vendor's model names only, unless the model's setting ``openai_limits`` decides.
    """

    per_text: int  # in tokens
    per_request: int
    inputs: int | None = None
    is_vendor_name: bool = True  # of the request's model


class Chat(Struct, frozen=True, kw_only=True):
    """Messages that the model's own chat template renders to one text. No prompt but a marker goes before it."""

    messages: tuple[tuple[str, tuple[str, ...]], ...]  # the role of each, and its parts
    add_generation_prompt: bool = False
    continue_final_message: bool = False  # end the text with the last message's own content

    def __len__(self) -> int:
        """Return how many characters the messages have."""
        return sum([len(part) for _, parts in self.messages for part in parts])


class EmbedJob(Struct, frozen=True, kw_only=True):
    """Texts to embed."""

    model: str | None  # a served name, an alias or a vendor's name; None: the default embedding model
    inputs: tuple[str | TokenIds | Chat, ...]  # token ids stand for the text that they decode to
    special: bool = True  # with the model's special tokens, without which multi-vector models don't work
    dimensions: int | None = None
    clamp_dimensions: bool = False  # dimensions above the model's mean all of them, and are no error
    role: Role | None = None  # what the texts are for, if the protocol has that
    prompt: str | None = None  # the name of one of the model's prompts
    vocabulary: str | None = (
        "cl100k_base"  # of the token ids: one of OpenAI's; None: the model's, without special tokens
    )
    vocabulary_is_default: bool = False  # the model's setting ``token_ids`` may replace it by the model's own
    token_limits: TokenLimits | None = None
    max_tokens: int | None = None  # the client's limit on each text
    max_row_tokens: int | None = None  # the client's limit on each row, special tokens included
    keep: KeepSide = "start"  # of a text that exceeds the client's or the model's limit
    on_overflow: OnOverflow | None = None  # None: the model's setting
    instruction: str | None = None  # prepended to queries, by models that take one
    normalize: bool | None = (
        None  # True: unit length; False: as before the model's normalization; None: as the model does
    )
    late_chunking: bool = False  # the inputs are parts of one text, encoded as a whole; each vector is a part's mean


class RepresentJob(Struct, frozen=True, kw_only=True):
    """Texts of which to return every output of the model."""

    model: str | None
    inputs: tuple[str | TokenIds | Chat, ...]  # token ids are the model's own
    special: bool = True  # as in EmbedJob
    outputs: tuple[Output, ...] = ()  # outputs that the model must have
    role: Role | None = None
    prompt: str | None = None
    max_row_tokens: int | None = None  # the client's limit on each row, special tokens included
    keep: KeepSide = "start"
    on_overflow: OnOverflow | None = None


class ClassifyJob(Struct, frozen=True, kw_only=True):
    """Texts, or pairs of texts, to classify. Of a pair, only the second text is truncated."""

    model: str | None
    inputs: tuple[str | tuple[str, str] | TokenIds | Chat, ...]  # token ids are the model's own
    special: bool = True  # as in EmbedJob; pairs always have them
    raw_scores: bool = False  # logits instead of probabilities
    max_row_tokens: int | None = None  # the client's limit on each row, special tokens included
    keep: KeepSide = "start"
    on_overflow: OnOverflow | None = None


class RankJob(Struct, frozen=True, kw_only=True):
    """A query, and the documents to sort by relevance to it."""

    model: str | None
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    max_tokens_per_document: int | None = None  # truncates documents before anything else
    max_tokens_per_query: int | None = None  # truncates the query before anything else
    max_row_tokens: int | None = (
        None  # limit on a text, or on a pair for models that read pairs, special tokens included
    )
    # Split a document that doesn't fit with the query into up to so many chunks, without overlap. Its score is that of
    # its best chunk. None: truncate it.
    max_chunks_per_document: int | None = None
    keep: KeepSide = "start"
    on_overflow: OnOverflow | None = None  # "error" also refuses what max_tokens_per_document would truncate
    raw_scores: bool = False  # logits of a cross-encoder, cosines of an embedding model
    instruction: str | None = None  # what relevance means, for models that take one; None: the model's default


class ScoreJob(Struct, frozen=True, kw_only=True):
    """Pairs of a query and a document to score, without sorting. An embedding model returns their cosine."""

    model: str | None
    pairs: tuple[tuple[str, str], ...]
    max_tokens_per_document: int | None = None
    max_tokens_per_query: int | None = None
    max_row_tokens: int | None = None  # as in RankJob, as are these two
    keep: KeepSide = "start"
    on_overflow: OnOverflow | None = None
    raw_scores: bool = False  # logits of a cross-encoder


class TokenizeJob(Struct, frozen=True, kw_only=True):
    """Texts to tokenize."""

    model: str | None  # None: the default embedding model, or else the default reranker
    texts: tuple[str | Chat, ...]
    special: bool  # with special tokens
    prompt: str | None = None


class DetokenizeJob(Struct, frozen=True, kw_only=True):
    """Token ids to decode."""

    model: str | None  # as in TokenizeJob
    ids: TokenIds  # of the model's vocabulary
    special: bool = True  # write special tokens by their names; False leaves them out


class Timings(Struct, frozen=True, kw_only=True):
    """How long a job took, in seconds, from when its model was loaded."""

    load_s: float  # the wait for the model before that
    taken_at: float  # time.perf_counter when this was measured
    total_s: float
    tokenize_s: float  # until its rows were queued
    queue_s: float  # from then until the first batch with one of its rows began
    inference_s: float  # from then until the last such batch ended, including batches of other jobs in between


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the model counts them."""

    tokens: int  # that went through the model
    truncated_tokens: int  # that were cut off before
    each: tuple[tuple[int, int], ...] = ()  # both, for each row in order; a row of an EmbedJob is a text


class Result(Struct, frozen=True, kw_only=True):
    """What all results of jobs that run a model have in common."""

    info: ModelInfo  # of the model
    inputs: int  # the job's texts, pairs or documents
    usage: Usage  # of every row, chunks included
    timings: Timings


class Embedded(Result, frozen=True, kw_only=True):
    """The result of an EmbedJob."""

    vectors: FloatArray  # (B, D) float32; row i is of input i
    int8_range: float | None  # R for int8 and uint8 vectors of this length; None if unknown


class Represented(Result, frozen=True, kw_only=True):
    """The result of a RepresentJob, in the order of its inputs."""

    texts: tuple[Representation, ...]


class Classified(Result, frozen=True, kw_only=True):
    """The result of a ClassifyJob."""

    scores: FloatArray  # (B, labels) probabilities, or logits if the job has raw_scores


class RankedDocument(Struct, frozen=True):
    """One document of a Ranked."""

    index: int  # into the job's documents
    score: float  # in [0, 1], unless the job has raw_scores


class Ranked(Result, frozen=True, kw_only=True):
    """The result of a RankJob."""

    results: tuple[RankedDocument, ...]  # best first; equal scores keep the order of the request
    # Tokens of the query with each document, in the job's order, before truncation; a lower bound for texts of over
    # 100,000 characters.
    document_tokens: tuple[int, ...]


class Scored(Result, frozen=True, kw_only=True):
    """The result of a ScoreJob."""

    scores: tuple[float, ...]  # one a pair, in the job's order


class TokenSpan(Struct, frozen=True):
    """One token of a text, and the characters ``text[start:stop]`` that it covers."""

    id: int
    token: str  # as the vocabulary spells it
    special: bool
    start: int  # 0, as is stop, for a special token
    stop: int


class TokenizedText(Struct, frozen=True):
    """A text, with its prompt before it, and its tokens in order."""

    text: str
    tokens: tuple[TokenSpan, ...]


class Tokenized(Struct, frozen=True, kw_only=True):
    """The result of a TokenizeJob. Nothing is truncated."""

    info: ModelInfo
    texts: tuple[TokenizedText, ...]
