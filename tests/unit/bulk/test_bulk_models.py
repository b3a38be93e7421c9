"""A server's answers become numbers; what it refuses is a fault of one row."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import numpy as np
import pytest

from nearfar import Settings
from nearfar.bulk.models import unlimited
from nearfar.bulk.remote_model import RemoteModel, open_client
from nearfar.core.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio


class Server:
    """Embeds a text as its length, by any protocol that OpenAI's clients can read."""

    def __init__(self, *, answers_base64: bool = True, busy: int = 0, status: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answers_base64, self._busy, self._status = answers_base64, busy, status

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        body = msgspec.json.decode(request.content)
        self.requests.append(body)
        if self._busy:
            self._busy -= 1
            return httpx2.Response(503, headers={"retry-after": "0"}, json={"error": {"message": "busy"}})
        if self._status:
            return httpx2.Response(self._status, json={"error": {"message": "Incorrect API key"}})
        if "query" in body:
            found = [{"index": at, "relevance_score": len(text) / 10} for at, text in enumerate(body["documents"])]
            return httpx2.Response(200, json={"results": found[::-1]})
        if any("bad" in text for text in body["input"]):
            return httpx2.Response(400, json={"error": {"message": "a text is bad"}})
        data = [{"index": at, "embedding": self._encode(len(text))} for at, text in enumerate(body["input"])]
        return httpx2.Response(200, json={"data": data[::-1], "usage": {"total_tokens": len(data)}})

    def _encode(self, length: int) -> str | list[float]:
        vector = np.array([length, 0.5], "<f4")
        return base64.b64encode(vector.tobytes()).decode() if self._answers_base64 else vector.tolist()


def model_of(server: Server) -> RemoteModel:
    client = httpx2.AsyncClient(base_url="http://server/v1/", transport=httpx2.MockTransport(server.answer))
    return RemoteModel(client, "a-model", dimensions=2)


async def test_without_a_model_the_server_s_default_is_used() -> None:
    server = Server()
    client = httpx2.AsyncClient(base_url="http://server/v1/", transport=httpx2.MockTransport(server.answer))

    await RemoteModel(client, None, dimensions=None).compute(rows_of(["abc"]))

    assert {"input", "encoding_format"} == {*server.requests[0]}


def rows_of(texts: Sequence[str]) -> list[tuple[str, ...]]:
    return [(text,) for text in texts]


@pytest.mark.parametrize("answers_base64", [True, False])
async def test_vectors_are_in_the_order_of_the_rows(answers_base64: bool) -> None:
    server = Server(answers_base64=answers_base64)

    found = await model_of(server).compute(rows_of(["x" * at for at in range(1, 601)]))

    assert [[at, 0.5] for at in range(1, 601)] == found.vectors.tolist()
    assert 600 == found.tokens
    assert [256, 256, 88] == sorted([len(body["input"]) for body in server.requests], reverse=True)
    assert ("a-model", 2) == (server.requests[0]["model"], server.requests[0]["dimensions"])


async def test_only_the_row_that_is_refused_has_no_vector() -> None:
    found = await model_of(Server()).compute(rows_of([*"abcdefg", "bad", *"hijk"]))

    assert {7: "a text is bad"} == found.faults
    assert [1.0] * 7 == found.vectors[:7, 0].tolist()
    assert np.isnan(found.vectors[7]).all()


async def test_scores_are_of_each_query_s_own_documents() -> None:
    server = Server()

    found = await model_of(server).compute([("q", "aa"), ("q", "b"), ("other", "cccc")])

    assert np.allclose([[0.2], [0.1], [0.4]], found.vectors)
    assert [("q", ["aa", "b"]), ("other", ["cccc"])] == [(body["query"], body["documents"]) for body in server.requests]


async def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfar.bulk.remote_model._FIRST_WAIT_S", 0.0)

    found = await model_of(Server(busy=2)).compute(rows_of(["abc"]))

    assert [[3.0, 0.5]] == found.vectors.tolist()


async def test_what_no_row_is_the_reason_of_ends_the_command() -> None:
    with pytest.raises(SetupError, match="answered 401: Incorrect API key"):
        await model_of(Server(status=401)).compute(rows_of(["abc"]))


VECTOR = {"index": 0, "embedding": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"<html>", "JSON is malformed"),
        (b"", "truncated"),
        ({"object": "list"}, "missing required field `data`"),
        ({"data": [VECTOR]}, "1 results for 2 rows"),
        ({"data": [VECTOR, VECTOR]}, "not one for each"),
        ({"data": [VECTOR, {"index": 1, "embedding": None}]}, "got `null`"),
        ({"data": [VECTOR, {"index": 1, "embedding": ["a"]}]}, "got `str`"),
        ({"data": [VECTOR, {"index": 1, "embedding": [1.0]}]}, "same shape"),
        ({"data": [VECTOR, {"index": 1, "embedding": "!!!!"}]}, "base64"),
        ({"data": [{"index": at, "embedding": "AADAfw=="} for at in range(2)]}, "aren't finite"),
        ({"data": [{"index": at, "embedding": []} for at in range(2)]}, "vectors of 0 numbers"),
    ],
)
async def test_an_answer_that_isn_t_a_vector_for_each_row_ends_the_command(reply: Any, message: str) -> None:
    content = reply if isinstance(reply, bytes) else msgspec.json.encode(reply)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=content))
    model = RemoteModel(httpx2.AsyncClient(base_url="http://server/v1/", transport=transport), None, dimensions=None)

    with pytest.raises(SetupError, match=f"embeddings answered with what can't be used: .*{message}"):
        await model.compute(rows_of(["a", "b"]))


async def test_vectors_of_another_length_than_before_end_the_command() -> None:
    lengths = iter([2, 3])

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"data": [{"index": 0, "embedding": [0.5] * next(lengths)}], "usage": None})

    client = httpx2.AsyncClient(base_url="http://server/v1/", transport=httpx2.MockTransport(answer))
    model = RemoteModel(client, None, dimensions=None)
    await model.compute(rows_of(["a"]))

    with pytest.raises(SetupError, match="vectors of 3 numbers, after 2"):
        await model.compute(rows_of(["a"]))


async def test_a_server_that_never_answered_is_asked_once() -> None:
    requests = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        raise httpx2.ConnectError("refused")

    client = httpx2.AsyncClient(base_url="http://server/v1/", transport=httpx2.MockTransport(answer))

    with pytest.raises(SetupError, match=r"http://server/v1/ can't be reached \(refused\)"):
        await RemoteModel(client, None, dimensions=None).compute(rows_of(["a"]))
    assert len(requests) == 1


@pytest.mark.parametrize("url", ["", "localhost:9000", "ftp://server", "http://", "http://host:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="is no address of a server"):
        open_client(url, None)


def test_commands_do_not_use_models_for_single_rows() -> None:
    """Whether one of them runs a row depends on what else runs, and its numbers differ in the last digit."""
    assert unlimited(Settings()).single_row_models is False
