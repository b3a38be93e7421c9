"""No request makes the server fail: whatever its body, path or headers, what comes is an answer or a refusal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from answering import call  # noqa: F401 — fixtures
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inputs import ODD, VALUES, bodies, near, written
from openapi_document import DOCUMENT, OPERATIONS, examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from answering import Answer

    Call = Callable[..., Answer]

# What the fake engine fails on by design; and what does by design what would spoil the tests after it.
MISBEHAVES = re.compile(rb"boom|nan|zero|few|quit|hang|giant", re.IGNORECASE)
_UNLOAD = "/admin/models/unload"
_NOT_HERE = 501  # routes that say that this server doesn't do that
POSTS = [path for path, method in OPERATIONS if method == "post"]
GETS = [path for path, method in OPERATIONS if method in {"get", "head"}]
PLAIN = re.compile(rb"[\t -~\x80-\xff]*")

FUZZ = settings.get_profile("fuzz")


def shown(path: str) -> list[Any]:
    content = DOCUMENT["paths"][path]["post"].get("requestBody", {"content": {}})["content"]
    return [] if path == _UNLOAD else [body for _, body in examples(content)]


def hold(answer: Answer) -> None:
    assert answer.status < 500 or answer.status == _NOT_HERE, answer
    for name, value in answer.headers:
        assert re.fullmatch(rb"[\w-]+", name), answer
        assert PLAIN.fullmatch(value), answer
    if (b"content-type", b"application/json; charset=utf-8") in answer.headers and answer.body:
        json.loads(answer.body)


@pytest.mark.parametrize("path", POSTS)
@FUZZ
@given(data=st.data())
def test_no_body_makes_a_route_fail(path: str, data: st.DataObject, call: Call) -> None:
    body = data.draw(bodies(shown(path)))
    assume(not MISBEHAVES.search(body))

    hold(call("POST", path, body))


IDS = st.one_of(
    st.integers(-2, 210_000),
    st.integers(),
    st.sampled_from([0, 100_255, 100_256, 100_257, 100_276, 100_277, 199_997, 200_018, 30_521, 30_522, 2**32]),
)
WITH_IDS = {
    "/v1/embeddings": lambda ids, model: {"model": model, "input": ids},
    "/v1/detokenize": lambda ids, model: {"model": model, "tokens": ids},
    "/detokenize": lambda ids, model: {"model": model, "tokens": ids},
    "/decode": lambda ids, model: {"model": model, "ids": ids},
}


@pytest.mark.parametrize("path", WITH_IDS)
@FUZZ
@given(
    ids=st.one_of(
        st.lists(IDS, max_size=30), st.lists(st.lists(IDS, max_size=10), max_size=4), st.lists(VALUES, max_size=3)
    ),
    model=st.sampled_from(["text-embedding-3-small", "gpt-4o-embedding", "all-MiniLM-L6-v2", "gpt-oss-120b", "nobody"]),
)
def test_no_token_ids_make_a_route_fail(path: str, ids: Any, model: str, call: Call) -> None:
    body = written(WITH_IDS[path](ids, model))
    assume(not MISBEHAVES.search(body))

    hold(call("POST", path, body))


HEADERS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(
                [
                    *(b"x-request-id", b"authorization", b"host", b"origin", b"content-type", b"accept", b"cookie"),
                    *(b"content-length", b"accept-encoding", b"traceparent", b"x-forwarded-for", b"transfer-encoding"),
                ]
            ),
            st.from_regex(rb"\A[a-z0-9-]{1,12}\Z"),
        ),
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [b"a\r\nset-cookie: x", b"Bearer ", b"bearer x", b"\xff" * 300, b"http://[", b"[::1", b"://"]
            ),
        ),
    ),
    max_size=6,
)


@FUZZ
@given(headers=HEADERS, method=st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PUT", "MADE-UP"]), data=st.data())
def test_no_headers_make_a_route_fail(headers: Any, method: str, data: st.DataObject, call: Call) -> None:
    path = data.draw(st.sampled_from([*POSTS, *GETS, "/nowhere"]))
    body = written(data.draw(near(shown(path)))) if path in POSTS and shown(path) else b""
    assume(not MISBEHAVES.search(body))

    hold(call(method, path, body, headers=headers))


@FUZZ
@given(
    start=st.sampled_from(["/", "/v1/models/", "/v1/", "/api/", "/v2/", "//", "/health/", ""]),
    rest=st.one_of(st.text(max_size=40), st.sampled_from([odd for odd in ODD if isinstance(odd, str)])),
    query=st.one_of(
        st.binary(max_size=40), st.from_regex(rb"\A(page_size|page_token|endpoint|default_only)=[!-~]{0,9}\Z")
    ),
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
)
def test_no_path_makes_the_server_fail(start: str, rest: str, query: bytes, method: str, call: Call) -> None:
    hold(call(method, start + rest, query=query))


# All but the pages about it all, which take a tenth of a second and read no query.
_ASKED = [path for path in GETS if DOCUMENT["paths"][path].get("get", {}).get("parameters") or path.startswith("/v1/")]


@FUZZ
@given(
    path=st.sampled_from(_ASKED),
    query=st.one_of(st.binary(max_size=40), st.from_regex(rb"\A([a-z_]{1,12}=[!-~]{0,9}&?){1,3}\Z")),
)
def test_no_query_makes_a_route_fail(path: str, query: bytes, call: Call) -> None:
    hold(call("GET", path.replace("{model_id}", "x"), query=query))
