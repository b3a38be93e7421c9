"""Types that all layers share: tasks, outputs, vectors, and what is known of a served model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Quoted, so that numpy is only imported where arrays are computed.
FloatArray: TypeAlias = "npt.NDArray[np.float32]"
IntArray: TypeAlias = "npt.NDArray[np.int32]"

Task = Literal["embed", "rank", "multi_vector", "sparse", "classify"]
Output = Literal["dense", "multi_vector", "sparse"]  # what a model can make of a text
EngineMethod = Literal["embed", "score", "represent", "hidden_states"]  # the methods of an engine that run a forward
TASK_OF: dict[Output, Task] = {"dense": "embed", "multi_vector": "multi_vector", "sparse": "sparse"}
TokenIds: TypeAlias = tuple[int, ...]
TokenVocabulary = Literal["openai", "model"]  # the origin of token ids on OpenAI's route
LoadState = Literal["unloaded", "loading", "loaded", "unloading"]
Batching = Literal["mixed lengths", "equal lengths", "one text"]  # which texts may run in one batch
KeepSide = Literal["start", "end"]  # which part of a text is kept when it is truncated
# What a text is for; it chooses the prompt. The last three exist for few models; others use their default prompt.
Role = Literal["query", "document", "classification", "clustering", "similarity"]


class SparseVector(Struct, frozen=True):
    """A sparse vector: the non-zero components of a vector of ``size``."""

    indices: IntArray  # (k,) ascending
    values: FloatArray  # (k,) all above 0
    size: int


class Representation(Struct, frozen=True, kw_only=True):
    """All outputs of a model for one text; None for those it doesn't have."""

    dense: FloatArray | None = None  # (D,)
    multi_vector: FloatArray | None = None  # (n, M): a row for each token that the model scores
    token_ids: tuple[int, ...] = ()  # (n): the token of each row of multi_vector
    sparse: SparseVector | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """Everything known about a served model; ``/info`` shows it."""

    name: str
    aliases: tuple[str, ...]
    tasks: tuple[Task, ...]
    source: str  # where the files are from: builtin, a folder, or the hub
    revision: str | None
    architecture: str
    engine: str
    device: str
    dtype: str
    dtype_reason: str
    batching: str  # which texts run in one batch
    verified: str  # with which library its numbers were compared, or why they weren't
    dim: int  # of a text's one vector; 0 without one
    token_dim: int  # of each token's vector; 0 without them
    vocabulary: int  # size of a sparse vector; 0 without one
    labels: tuple[str, ...]  # of a classifier
    max_tokens: int
    pooling: str
    pooling_source: str  # the file that names it, or the family's default
    normalized: bool
    tokenizer_source: str  # tokenizer.json, or the class of transformers that built it; empty until it is loaded
    prompts: dict[str, str]
    prompts_source: str
    default_prompt: str | None
    token_ids: TokenVocabulary
    openai_limits: bool | None  # whether OpenAI's limits apply; None: for OpenAI's own model names
    score: str  # how a relevance score is computed
    score_is_probability: bool  # the model was trained to return it as one
    int8_range: float | None  # R: components from -R to R map to bytes; None without vectors, or if R is unknown
    parameters: int | None  # None if the weights are stored quantized
    file_bytes: int  # size of the weights on disk
    created: int  # Unix time, as in OpenAI's list of models


class Allowance(Struct, frozen=True):
    """A limit, how much of it is left, and the seconds until all of it is; None if those are unknown."""

    limit: int
    left: int
    reset_s: float | None


class QueueCapacity(Struct, frozen=True, kw_only=True):
    """How full one model's queue is. Tokens and requests count from their admission until they are answered."""

    tokens_limit: int
    tokens_free: int
    requests_limit: int
    requests_free: int
    # How long it takes to empty at the throughput of the last batches; None before the first batch has run.
    drain_s: float | None


class ModelState(Struct, frozen=True, kw_only=True):
    """Whether one served model is in memory."""

    name: str
    state: LoadState
    bytes: int  # of its weights in memory, or the most they would take
    pin: bool
    requests: int  # that use it or wait for it
    closes_in_s: float | None  # until it is unloaded unless a request comes; None if it stays, or isn't loaded
