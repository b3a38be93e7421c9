"""Encodes jobs to rows for an engine: prompts, truncation, and the threads that tokenize long texts."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, TypeVar, cast

import msgspec

from nearfar.core.errors import EmptyInput, InputError, Overloaded, TextTooLong, TooManyTokens
from nearfar.core.jobs import Chat, ClassifyJob, EmbedJob, RepresentJob, Usage
from nearfar.core.types import KeepSide, TokenIds
from nearfar.models.files.tokenizer import openai_tokens
from nearfar.models.tokenization.chunking import Chunking
from nearfar.models.tokenization.row import Row, row_ids
from nearfar.serving.pipeline.limits import check_rows, check_token_limits
from nearfar.serving.queue.forward import contained
from nearfar.serving.registry.opening import Model

_T = TypeVar("_T")

WORKERS = 2
_truncated_tokens = attrgetter("truncated_tokens")
_MAX_INLINE = 1000  # characters; they take at most 0.4 ms, and passing them to a thread 0.15 ms
_MAX_WAITING = 50_000_000  # characters that wait for a thread: five of the largest bodies; a guess


class TokenizerPool:
    """Runs tokenization: short texts on the event loop, long ones on two threads. One for the whole server."""

    def __init__(self) -> None:
        # Tokenization releases the GIL and takes microseconds per text, up to 50 ms for a long one. There are two
        # threads so that one text that takes seconds (10 MB with few tokens) doesn't block all others.
        self._threads = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="tokens")
        self._waiting = 0
        self._short: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []

    def close(self) -> None:
        """Cancel what waits to be tokenized."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, size: int, call: Callable[[], _T], *, alone: bool = False) -> _T:
        """Call a function that tokenizes so many characters. Raises Overloaded if too many of them wait.

        Short texts are tokenized together with those of other requests that arrive now, unless a request is ``alone``.
        """
        if alone and size <= _MAX_INLINE:
            return contained(call)
        loop = asyncio.get_running_loop()
        if size <= _MAX_INLINE:
            future: asyncio.Future[_T] = loop.create_future()
            if not self._short:
                loop.call_soon(self._run_short)
            self._short.append((future, call))
            return await future
        if self._waiting and self._waiting + size > _MAX_WAITING:
            message = (
                f"too much text waits to be tokenized: {self._waiting:,} characters, and {size:,} of this request, of "
                f"at most {_MAX_WAITING:,}; send fewer texts at once (max_body_bytes limits a request)"
            )
            raise Overloaded(message, retry_after_s=1)
        self._waiting += size
        try:
            return await loop.run_in_executor(self._threads, contained, call)
        finally:
            self._waiting -= size

    def _run_short(self) -> None:
        """Tokenize the short texts of all requests that arrived together. One after another, each takes 40 % less."""
        waiting, self._short = self._short, []
        for future, call in waiting:
            if not future.done():
                try:
                    future.set_result(contained(call))
                except Exception as error:  # noqa: BLE001 — raised where the request waits
                    future.set_exception(error)


def limit_rows(model: Model, max_tokens: int | None, *, pairs: bool = False) -> Model:
    """Return the model with this limit on its rows, special tokens included, if it is below the model's own.

    Raises InputError for a limit that leaves no room for text.
    """
    if max_tokens is None or max_tokens >= model.encoder.max_tokens:
        return model
    encoder = copy.copy(model.encoder)
    [empty] = encoder.encode_pairs("", [""], None) if pairs else encoder.encode([""])
    if max_tokens <= len(empty.ids):
        raise InputError(
            f"a limit of {max_tokens} tokens leaves no room for text: this model adds {len(empty.ids)} of its own"
        )
    encoder.max_tokens = max_tokens
    return msgspec.structs.replace(model, encoder=encoder)


def _model_for(model: Model, job: EmbedJob | RepresentJob | ClassifyJob) -> Model:
    """Return the model with the encoder and the limit that a job asks for."""
    is_chat = isinstance(job.inputs[0], Chat)
    if is_chat or not job.special:
        encoder = model.encoder.variant(special=job.special, rendered=is_chat)
        model = msgspec.structs.replace(model, encoder=encoder)
    return model if job.max_row_tokens is None else limit_rows(model, job.max_row_tokens)


def takes_prompt(job: EmbedJob | RepresentJob, name: str | None) -> bool:
    """Return whether a prompt goes before the texts: not before a chat. Raises InputError for a chat with its name."""
    is_chat = isinstance(job.inputs[0], Chat)
    if is_chat and name:
        raise InputError("messages take no prompt; leave out its name", "messages")
    return not is_chat


def encode_texts(model: Model, job: EmbedJob, prompt: str) -> list[Row]:
    """Encode each input after the prompt, truncated to the limits. Raises an InputError for what exceeds them."""
    model = _model_for(model, job)
    texts = _decode_inputs(model, job.inputs, job)
    limits = job.token_limits
    count_up_to = limits.per_text if limits else None
    rows = model.encoder.encode(texts, prompt, job.max_tokens, count_up_to=count_up_to, keep=job.keep)
    if limits:
        # Token ids count as sent, because clients split their input by that count.
        counts = [0 if isinstance(text, tuple) else row.token_count for row, text in zip(rows, job.inputs, strict=True)]
        check_token_limits(limits, counts)
    return check_rows(rows, job.on_overflow or model.on_overflow, allow_empty=True)


def encode_chunks(model: Model, job: EmbedJob, prompt: str) -> tuple[Row, list[tuple[int, int]]]:
    """Encode all inputs into one row, and return it with each input's span. Never truncates: too long is an error."""
    model = _model_for(model, job)
    row, spans = model.encoder.encode_concatenated(_decode_inputs(model, job.inputs, job), prompt)
    counts = [stop - start for start, stop in spans]
    if job.token_limits:
        check_token_limits(
            job.token_limits,
            [count if isinstance(text, str) else 0 for count, text in zip(counts, job.inputs, strict=True)],
        )
    for index, count in enumerate(counts):
        if not count:
            raise EmptyInput(f"text {index} has no token this model knows")
        if job.max_tokens is not None and count > job.max_tokens:
            raise TextTooLong(index, count, job.max_tokens)
    if row.truncated_tokens:
        raise TooManyTokens(row.token_count, row.token_count - row.truncated_tokens)
    return row, spans


def encode_outputs(model: Model, job: RepresentJob, prompt: str) -> list[Row]:
    """Encode texts for all of the model's outputs."""
    model = _model_for(model, job)
    rows = model.encoder.encode(_decode_inputs(model, job.inputs), prompt, keep=job.keep, role=job.role or "document")
    return check_rows(rows, job.on_overflow or model.on_overflow)


def encode_classified(model: Model, job: ClassifyJob) -> list[Row]:
    """Encode texts, and pairs of texts, for a classifier."""
    model = _model_for(model, job)
    rows = []
    for text in job.inputs:
        if isinstance(text, tuple) and isinstance(text[0], str):
            rows.append(_encode_pair(model, *text, job.keep))
        else:
            rows += model.encoder.encode(_decode_inputs(model, [text]), keep=job.keep)
    return check_rows(rows, job.on_overflow or model.on_overflow)


def usage_of(rows: Sequence[Row]) -> Usage:
    """Count the tokens of rows that went through a model."""
    tokens, truncated = [*map(len, map(row_ids, rows))], [*map(_truncated_tokens, rows)]
    each = tuple(zip(tokens, truncated, strict=True))
    return Usage(tokens=sum(tokens), truncated_tokens=sum(truncated), each=each)


def _decode_inputs(model: Model, inputs: Sequence[str | TokenIds | Chat], job: EmbedJob | None = None) -> list[str]:
    """Render chats, and decode token ids: an EmbedJob's by its vocabulary, others by the model's own."""
    if {*map(type, inputs)} == {str}:
        return [*cast("Sequence[str]", inputs)]
    if job and job.token_limits:
        check_token_limits(job.token_limits, [len(text) if isinstance(text, tuple) else 0 for text in inputs])
    rendered = [model.encoder.messages.render(text) if isinstance(text, Chat) else text for text in inputs]
    is_own = job is None or (job.vocabulary_is_default and model.info.token_ids == "model")  # noqa: S105 — no password
    if job and not is_own and (vocabulary := job.vocabulary) is not None:
        return [openai_tokens.decode(text, vocabulary) if isinstance(text, tuple) else text for text in rendered]
    return [
        model.encoder.tokenizer.decode(text, special=False) if isinstance(text, tuple) else text for text in rendered
    ]


def _encode_pair(model: Model, first: str, second: str, keep: KeepSide) -> Row:
    """Encode two texts as one row. Truncation cuts the end of the second, or its start to keep the end."""
    [row] = model.encoder.encode_pairs(first, [second], None)
    if keep == "start" or not row.truncated_tokens:
        return row
    end = model.encoder.chunk(second, model.encoder.budget_beside_query(first, None), Chunking(keep=keep))
    [shorter] = model.encoder.encode_pairs(first, end.texts, None)
    return msgspec.structs.replace(
        shorter, token_count=row.token_count, truncated_tokens=shorter.truncated_tokens + end.truncated_tokens
    )
