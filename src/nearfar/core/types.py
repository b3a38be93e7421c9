"""The house's own words for a request, an answer and a model. Knows no dialect, no engine and no HTTP."""

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
Output = Literal["dense", "multi_vector", "sparse"]  # what a text may become
TASK_OF: dict[Output, Task] = {"dense": "embed", "multi_vector": "multi_vector", "sparse": "sparse"}
TokenIds: TypeAlias = tuple[int, ...]
LoadState = Literal["unloaded", "loading", "loaded", "unloading"]
Keep = Literal["start", "end"]  # which part of an over-long text is kept
# What a text is for. The last three are for models that were trained to be told; others take their default prompt.
Role = Literal["query", "document", "classification", "clustering", "similarity"]


class Weights(Struct, frozen=True):
    """A sparse vector of ``size``: its ``values`` (k,), all above 0, at the ascending ``indices`` (k,)."""

    indices: IntArray
    values: FloatArray
    size: int


class Representation(Struct, frozen=True, kw_only=True):
    """What one text became: ``dense`` (D,), ``multi_vector`` (n, M), one row a token that counts, ``sparse``."""

    dense: FloatArray | None = None
    multi_vector: FloatArray | None = None
    sparse: Weights | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """All that is true of one served model; what ``/info`` shows.

    ``dim`` is the length of a text's one vector, ``token_dim`` of those of its tokens, 0 where there are none.
    ``vocabulary`` is the size of a sparse vector, ``labels`` are a classifier's. ``score`` says how a relevance score
    comes about, and ``score_is_probability`` whether the model was trained to give it as one. ``int8_range`` is the R
    by which vectors of ``dim`` components are made into bytes; None where there are none, or where they have no usual
    length and the settings say no R. ``parameters`` counts the weights, None where they are stored quantised, and
    ``file_bytes`` is what they take on the disk.
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
    token_dim: int
    vocabulary: int
    labels: tuple[str, ...]
    max_tokens: int
    pooling: str
    pooling_source: str
    normalized: bool
    prompts: dict[str, str]
    prompts_source: str
    default_prompt: str | None
    score: str
    score_is_probability: bool
    int8_range: float | None
    parameters: int | None
    file_bytes: int
    created: int


class QueueCapacity(Struct, frozen=True, kw_only=True):
    """How full one model's queue is. Tokens and requests count from their admission until they are answered."""

    tokens_limit: int
    tokens_free: int
    requests_limit: int
    requests_free: int
    # How long it takes to empty at the throughput of the last batches; None before the first batch has run.
    drain_s: float | None


class ModelState(Struct, frozen=True, kw_only=True):
    """Whether one served model is in memory.

    ``bytes`` is what its weights take there, or would at most. ``requests`` counts those that hold it or wait for it.
    ``closes_in_s`` says when it goes if nobody asks for it any more; None where it stays, or isn't there.
    """

    name: str
    state: LoadState
    bytes: int
    pin: bool
    requests: int
    closes_in_s: float | None
