"""A model that a server has, for a command that runs it over HTTP."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.bulk.models import Computed, Texts, isolate, join
from nearfar.core.errors import RequestError, SetupError
from nearfar.core.types import FloatArray

_log = logging.getLogger(__name__)
_Reply = TypeVar("_Reply")
_Item = TypeVar("_Item", "_Vector", "_Score")
_REQUEST_TIMEOUT_S = 600.0
_PIECE = 256  # rows of one request to a server
_REQUESTS = 8  # at once
_TRIES, _FIRST_WAIT_S, _MAX_WAIT_S = 8, 0.5, 30.0
_RETRIED = {408, 409, 429, 500, 502, 503, 504}
_REFUSED = {400, 413, 422}  # that a row may be the reason of


class _Vector(Struct):
    index: int
    embedding: str | list[float]


class _Usage(Struct):
    total_tokens: int = 0


class _Embeddings(Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class _Score(Struct):
    index: int
    relevance_score: float


class _Ranking(Struct):
    results: list[_Score]


class RemoteModel:
    """A model of a server that speaks OpenAI's protocol, or has ``/rerank`` for rows of two texts."""

    def __init__(self, client: Any, model: str | None, *, dimensions: int | None) -> None:
        self._client = client  # httpx2.AsyncClient with the server's address and key
        self._fields: dict[str, object] = {"model": model} if model else {}  # or the server's default
        if dimensions is not None:
            self._fields["dimensions"] = dimensions
        self._turns = asyncio.Semaphore(_REQUESTS)
        self._has_answered = False
        self._width = 0  # of its vectors
        self.identity: dict[str, object] = {"url": str(client.base_url), **self._fields}
        self.int8_range: float | None = None

    async def run(self, rows: Sequence[Texts]) -> Computed:
        """Compute rows by one request. Raises SetupError if the server can't be reached, or refuses the key."""
        return await (self._rank(rows) if len(rows[0]) > 1 else self._embed(rows))

    async def compute(self, rows: Sequence[Texts]) -> Computed:
        """Compute the rows by several requests at once."""
        groups = _same_query(rows) if len(rows[0]) > 1 else [rows]
        parts = [group[at : at + _PIECE] for group in groups for at in range(0, len(group), _PIECE)]
        found = await asyncio.gather(*[isolate(self.run, part) for part in parts])
        return join(found, [len(part) for part in parts])

    async def split(self, _text: str, _size: int, /) -> list[tuple[int, int]]:
        """Raise SetupError: only the model's own tokenizer counts its tokens."""
        raise SetupError("--chunk needs the model's tokenizer, which a server keeps; leave out --url or --chunk")

    async def _embed(self, rows: Sequence[Texts]) -> Computed:
        body = {**self._fields, "input": [text for (text,) in rows], "encoding_format": "base64"}
        reply = await self._post("embeddings", body, _Embeddings)
        try:
            vectors = _vectors(_in_order(reply.data, len(rows)), self._width)
        except ValueError as error:
            raise self._refusal("embeddings", error) from error
        self._width = vectors.shape[1]
        return Computed(vectors, reply.usage.total_tokens if reply.usage else 0, [False] * len(rows))

    async def _rank(self, rows: Sequence[Texts]) -> Computed:
        body = {**self._fields, "query": rows[0][0], "documents": [document for _, document in rows]}
        reply = await self._post("rerank", body, _Ranking)
        try:
            scores = np.array([item.relevance_score for item in _in_order(reply.results, len(rows))], np.float32)
        except ValueError as error:
            raise self._refusal("rerank", error) from error
        return Computed(scores[:, None], 0, [False] * len(rows))

    def _refusal(self, path: str, error: Exception) -> SetupError:
        return SetupError(f"{self._client.base_url}{path} answered with what can't be used: {error}")

    async def _post(self, path: str, body: dict[str, object], kind: type[_Reply]) -> _Reply:
        """Send a request, again while the server is busy. Raises RequestError for a row, or else SetupError."""
        from httpx2 import HTTPError

        wait_s = _FIRST_WAIT_S
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._turns:
                    reply = await self._client.post(path, json=body)
            except HTTPError as error:
                why = f"{self._client.base_url} can't be reached ({str(error) or type(error).__name__})"
                if attempt == _TRIES or not self._has_answered:
                    raise SetupError(why) from error
            else:
                self._has_answered = True
                if reply.is_success:
                    try:
                        return msgspec.json.decode(reply.content, type=kind)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        raise self._refusal(path, error) from error
                if reply.status_code in _REFUSED:
                    raise RequestError(_message(reply))
                why = f"{reply.request.url} answered {reply.status_code}: {_message(reply)}"
                if reply.status_code not in _RETRIED or attempt == _TRIES:
                    raise SetupError(why)
                wait_s = max(wait_s, _retry_after_s(reply))
            _log.warning("%s; the request is sent again in %g s", why, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _MAX_WAIT_S)
        raise AssertionError


def open_client(url: str, key: str | None) -> Any:
    """Return a client of a server; a context manager. Raises SetupError for what is no URL of HTTP."""
    from httpx2 import URL, AsyncClient, InvalidURL, Limits

    try:
        is_http = URL(url).scheme in {"http", "https"} and URL(url).host
    except InvalidURL:
        is_http = False
    if not is_http:
        raise SetupError(f"--url {url!r} is no address of a server, such as http://127.0.0.1:9000/v1")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = Limits(max_connections=_REQUESTS)
    return AsyncClient(base_url=f"{url.rstrip('/')}/", headers=headers, timeout=_REQUEST_TIMEOUT_S, limits=limits)


def _same_query(rows: Sequence[Texts]) -> list[Sequence[Texts]]:
    """Divide rows into parts of one query each."""
    starts = [at for at in range(len(rows)) if not at or rows[at][0] != rows[at - 1][0]]
    return [rows[start:stop] for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)]


def _in_order(items: list[_Item], count: int) -> list[_Item]:
    """Return the items of an answer in the order of the rows. Raises ValueError if a row has none, or several."""
    if sorted(item.index for item in items) != [*range(count)]:
        raise ValueError(f"{len(items)} results for {count} rows, or not one for each")
    return sorted(items, key=lambda item: item.index)


def _vectors(items: list[_Vector], width: int) -> FloatArray:
    """Return the vectors (B, D). Raises ValueError unless they are finite, and as long as each other and as before."""
    sent = [item.embedding for item in items]
    rows = [np.frombuffer(base64.b64decode(one, validate=True), "<f4") if isinstance(one, str) else one for one in sent]
    vectors = np.stack([np.asarray(row, np.float32) for row in rows])
    if not vectors.shape[1] or (width and vectors.shape[1] != width):
        raise ValueError(f"vectors of {vectors.shape[1]} numbers{f', after {width}' if width else ''}")
    if not np.isfinite(vectors).all():
        raise ValueError("numbers that aren't finite")
    return vectors


def _message(reply: Any) -> str:
    """Return the sentence of an error."""
    try:
        body = reply.json()
    except ValueError:
        return str(reply.text)[:200]
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return str(found or body)[:500]


def _retry_after_s(reply: Any) -> float:
    try:
        return min(float(reply.headers.get("retry-after", 0)), _MAX_WAIT_S)
    except ValueError:
        return 0.0
