"""The rules of a job: what may not be empty, which values are legal, and how many tokens are allowed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nearfar.core.errors import (
    EmptyInput,
    InputError,
    InvalidDimensions,
    TextTooLong,
    TooManyItems,
    TooManyTokens,
    WrongTask,
)
from nearfar.core.jobs import Chat, ClassifyJob, EmbedJob, RankJob, RepresentJob, ScoreJob, TokenLimits
from nearfar.core.settings import OnOverflow
from nearfar.core.types import TASK_OF, TokenIds
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row, row_ids
from nearfar.serving.registry.opening import Model

Job = EmbedJob | RepresentJob | ClassifyJob | RankJob | ScoreJob

# kind of job → the list that may not be empty, and the error message
_REQUIRED: dict[type[Job], tuple[str, str]] = {
    EmbedJob: ("inputs", "there is nothing to embed"),
    RepresentJob: ("inputs", "there is nothing to embed"),
    ClassifyJob: ("inputs", "there is nothing to classify"),
    RankJob: ("documents", "list of documents must not be empty"),
    ScoreJob: ("pairs", "there is nothing to compare"),
}
# kind of job → the fields that are None or at least 1
_AT_LEAST_ONE: dict[type[Job], tuple[str, ...]] = {
    EmbedJob: ("max_tokens",),
    RankJob: ("top_n", "max_tokens_per_document", "max_tokens_per_query", "max_chunks_per_document"),
    ScoreJob: ("max_tokens_per_document", "max_tokens_per_query"),
}
_MAX_SHOWN = 262_144  # characters that one request may ask to see as tokens: four times Cohere's limit for a text


def check_job(job: Job) -> None:
    """Raise EmptyInput if the job has nothing to do, and InputError for a limit below 1."""
    kind = type(job)
    if isinstance(job, RankJob) and not job.query.strip():
        raise EmptyInput("query must not be empty or be only whitespace", "query")
    field, message = _REQUIRED[kind]
    if not getattr(job, field):
        raise EmptyInput(message, field)
    for field in _AT_LEAST_ONE.get(kind, ()):
        value = getattr(job, field)
        if value is not None and value < 1:
            raise InputError(f"{field} must be at least 1, not {value}", field)


def check_vectors(recipe: Recipe, job: EmbedJob) -> None:
    """Raise an InputError if the model can't compute the vectors that the job asks for."""
    dimensions = job.dimensions
    if dimensions is not None and (dimensions < 1 or (dimensions > recipe.dim and not job.clamp_dimensions)):
        raise InvalidDimensions(dimensions, recipe.dim)
    if job.late_chunking and recipe.pooling != ("mean",):
        modes = " and ".join(recipe.pooling)
        raise InputError(f"late chunking needs a model with mean pooling, and this one has {modes}")
    if (recipe.layers or recipe.truncate_dim) and job.late_chunking:
        raise InputError("late chunking needs a model without layers after pooling, and this one has some")
    if recipe.layers and recipe.normalize and job.normalize is False:
        raise InputError("this model has layers after pooling and returns normalized vectors only")


def check_outputs(model: Model, job: RepresentJob) -> None:
    """Raise WrongTask if the model lacks one of the outputs."""
    missing = next((output for output in job.outputs if output not in model.recipe.outputs), None)
    if missing or not model.recipe.outputs:
        raise WrongTask(model.info.name, TASK_OF[missing or "dense"])


def apply_limits(model: Model, job: EmbedJob) -> EmbedJob:
    """Return the job, without the protocol's limits where they don't apply. Raises TooManyItems."""
    limits = job.token_limits
    if limits is None:
        return job
    if limits.is_vendor_name if model.info.openai_limits is None else model.info.openai_limits:
        if limits.inputs and len(job.inputs) > limits.inputs:
            raise TooManyItems("input", len(job.inputs), limits.inputs)
        return job
    return msgspec.structs.replace(job, token_limits=None)


def check_token_limits(limits: TokenLimits, counts: Sequence[int]) -> None:
    """Raise TextTooLong or TooManyTokens if texts with so many tokens exceed the protocol's limits."""
    for index, count in enumerate(counts):
        if count > limits.per_text:
            raise TextTooLong(index, count, limits.per_text)
    if sum(counts) > limits.per_request:
        raise TooManyTokens(sum(counts), limits.per_request)


def check_rows(rows: list[Row], on_overflow: OnOverflow, *, allow_empty: bool = False) -> list[Row]:
    """Return the rows. Raises EmptyInput for one without tokens, and TextTooLong for a truncated one if asked to.

    With ``allow_empty`` one of them has to have tokens.
    """
    filled = [*map(bool, map(row_ids, rows))]
    if not all(filled) and not (allow_empty and any(filled)):
        raise EmptyInput(f"text {filled.index(False)} has no token this model knows")
    for index, row in enumerate(rows) if on_overflow == "error" else ():
        if row.truncated_tokens:
            raise TextTooLong(index, row.token_count, row.token_count - row.truncated_tokens)
    return rows


def count_characters(inputs: Sequence[str | TokenIds | Chat]) -> int:
    """Count the characters, four for a token id."""
    return sum([4 * len(text) if isinstance(text, tuple) else len(text) for text in inputs])


def check_shown(inputs: Sequence[str | TokenIds | Chat]) -> int:
    """Return the number of characters. Raises InputError if there are too many to show their tokens."""
    size = count_characters(inputs)
    if size > _MAX_SHOWN:
        raise InputError(f"the texts have {size} characters together; at most {_MAX_SHOWN} are shown at once")
    return size
