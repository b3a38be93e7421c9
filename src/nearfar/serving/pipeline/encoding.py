"""Jobs → rows for an engine: which prompt goes before a text, where it is cut, and which texts are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nearfar.core.errors import EmptyInput, InputError, TextTooLong, TooManyTokens, WrongTask
from nearfar.core.types import TASK_OF
from nearfar.models.tokenization import openai_tokens
from nearfar.models.tokenization.chunking import Chunking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.jobs import ClassifyJob, EmbedJob, RepresentJob, TokenLimits
    from nearfar.core.settings import OnOverflow
    from nearfar.core.types import KeepSide, TokenIds
    from nearfar.models.tokenization.row import Row
    from nearfar.serving.registry.opening import Model


def rows_of_texts(model: Model, job: EmbedJob, prompt: str) -> list[Row]:
    """Tokenise the job's inputs with the prompt before each, hold them against the limits, and cut them."""
    texts = _texts(model, job)
    if job.max_tokens is not None and job.max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {job.max_tokens}", "max_tokens")
    enough = job.token_limits.per_text if job.token_limits else None
    rows = model.tokens.encode(texts, prompt, job.max_tokens, count_up_to=enough, keep=job.keep)
    _refuse_many(job, [row.token_count for row in rows])
    return _kept(rows, job.on_overflow or model.on_overflow)


def rows_of_chunks(model: Model, job: EmbedJob, prompt: str) -> tuple[Row, list[tuple[int, int]]]:
    """Lay all of the job's inputs in one row, and say where each lies in it. What is too long is refused, never cut."""
    row, spans = model.tokens.encode_concatenated(_texts(model, job), prompt)
    counts = [stop - start for start, stop in spans]
    _refuse_many(job, counts)
    for index, count in enumerate(counts):
        if not count:
            raise EmptyInput(f"text {index} has no token this model knows")
        if job.max_tokens is not None and count > job.max_tokens:
            raise TextTooLong(index, count, job.max_tokens)
    if row.truncated_tokens:
        raise TooManyTokens(row.token_count, row.token_count - row.truncated_tokens)
    return row, spans


def _texts(model: Model, job: EmbedJob) -> list[str]:
    """Turn token ids among the inputs into text."""
    if job.token_limits:
        _refuse_many_ids(job.inputs, job.token_limits)
    if job.vocabulary is None:
        return _own_texts(model, job.inputs)
    vocabulary = job.vocabulary
    return [text if isinstance(text, str) else openai_tokens.decode(text, vocabulary) for text in job.inputs]


def _own_texts(model: Model, inputs: Sequence[str | TokenIds]) -> list[str]:
    """Turn the model's own token ids among the inputs into text."""
    return [text if isinstance(text, str) else model.tokens.decode(text, special=False) for text in inputs]


def _refuse_many(job: EmbedJob, counts: Sequence[int]) -> None:
    """Refuse texts over the limits; token ids count as sent, because clients split their input by that count."""
    if job.token_limits:
        counted = [count if isinstance(text, str) else 0 for text, count in zip(job.inputs, counts, strict=True)]
        _refuse_over(counted, job.token_limits)


def _refuse_many_ids(inputs: Sequence[str | TokenIds], token_limits: TokenLimits) -> None:
    _refuse_over([0 if isinstance(text, str) else len(text) for text in inputs], token_limits)


def _refuse_over(counts: Sequence[int], token_limits: TokenLimits) -> None:
    for index, count in enumerate(counts):
        if count > token_limits.per_text:
            raise TextTooLong(index, count, token_limits.per_text)
    if sum(counts) > token_limits.per_request:
        raise TooManyTokens(sum(counts), token_limits.per_request)


def refuse_empty(rows: Sequence[Row]) -> None:
    """Refuse rows that have no token."""
    for index, row in enumerate(rows):
        if not row.ids:
            raise EmptyInput(f"text {index} has no token this model knows")


def _refuse_cut(rows: Sequence[Row]) -> None:
    for index, row in enumerate(rows):
        if row.truncated_tokens:
            raise TextTooLong(index, row.token_count, row.token_count - row.truncated_tokens)


def rows_to_represent(model: Model, job: RepresentJob, prompt: str) -> list[Row]:
    """Tokenise texts of which all is wanted that the model makes of them."""
    rows = model.tokens.encode(_own_texts(model, job.inputs), prompt, keep=job.keep, role=job.role or "document")
    return _kept(rows, job.on_overflow or model.on_overflow)


def refuse_unrepresentable(model: Model, job: RepresentJob) -> None:
    """Refuse a job without texts, or for an output that isn't among the model's."""
    if not job.inputs:
        raise EmptyInput("there is nothing to embed")
    absent = next((output for output in job.outputs if output not in model.recipe.outputs), None)
    if absent or not model.recipe.outputs:
        raise WrongTask(model.info.name, TASK_OF[absent or "dense"])


def rows_to_classify(model: Model, job: ClassifyJob) -> list[Row]:
    """Tokenise texts, and pairs of a text and another."""
    rows = []
    for text in job.inputs:
        if isinstance(text, str):
            rows += model.tokens.encode([text], keep=job.keep)
        else:
            rows.append(_pair(model, *text, job.keep))
    return _kept(rows, job.on_overflow or model.on_overflow)


def _pair(model: Model, first: str, second: str, keep: KeepSide) -> Row:
    """Put two texts together; of a second one that is too long the end is left where that is to be kept."""
    [row] = model.tokens.encode_pairs(first, [second], None)
    if keep == "start" or not row.truncated_tokens:
        return row
    left = model.tokens.chunk(second, model.tokens.budget_beside_query(first, None), Chunking(keep=keep))
    [shorter] = model.tokens.encode_pairs(first, left.texts, None)
    return msgspec.structs.replace(
        shorter, token_count=row.token_count, truncated_tokens=shorter.truncated_tokens + left.truncated_tokens
    )


def _kept(rows: list[Row], on_overflow: OnOverflow) -> list[Row]:
    """Refuse rows that have no token, and if asked to, those that were cut."""
    refuse_empty(rows)
    if on_overflow == "error":
        _refuse_cut(rows)
    return rows
