"""No request makes the server fail: whatever its body, path or headers, the response is an answer or a refusal."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from fuzz_app import FAULTS, GETS, POSTS, body_examples, call, check_answer  # noqa: F401 — call is a fixture
from fuzz_inputs import EDGE_CASES, FUZZ, IS_SHORT, VALUES, bodies, mutate, mutated, to_json
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openapi_document import DOCUMENT

if TYPE_CHECKING:
    from fuzz_app import Caller

INPUTS_PER_SEED = 10 if IS_SHORT else 50


@pytest.mark.parametrize("path", POSTS)
@FUZZ
@given(data=st.data())
def test_no_body_makes_a_route_fail(path: str, data: st.DataObject, call: Caller) -> None:
    body = data.draw(bodies(body_examples(path)))
    assume(not FAULTS.search(body))

    check_answer(call("POST", path, body))


@pytest.mark.parametrize("path", POSTS)
@settings(FUZZ, max_examples=1 if IS_SHORT else FUZZ.max_examples)
@given(seed=st.integers(0, 2**64 - 1))
def test_no_body_of_many_makes_a_route_fail(path: str, seed: int, call: Caller) -> None:
    rng = random.Random(seed)  # noqa: S311 — must be reproducible
    examples = body_examples(path) or [{"model": "unknown"}]

    for _ in range(INPUTS_PER_SEED):
        body = mutate(rng, examples)
        if not FAULTS.search(body):
            check_answer(call("POST", path, body))


TOKEN_IDS = st.one_of(
    st.integers(-2, 210_000),
    st.integers(),
    st.sampled_from([0, 100_255, 100_256, 100_257, 100_276, 100_277, 199_997, 200_018, 30_521, 30_522, 2**32]),
)
TOKEN_ID_FIELDS = {"/v1/embeddings": "input", "/v1/detokenize": "tokens", "/detokenize": "tokens", "/decode": "ids"}


@pytest.mark.parametrize("path", TOKEN_ID_FIELDS)
@FUZZ
@given(
    ids=st.one_of(
        st.lists(TOKEN_IDS, max_size=30),
        st.lists(st.lists(TOKEN_IDS, max_size=10), max_size=4),
        st.lists(VALUES, max_size=3),
    ),
    model=st.sampled_from(
        ["text-embedding-3-small", "gpt-4o-embedding", "all-MiniLM-L6-v2", "gpt-oss-120b", "unknown"]
    ),
)
def test_no_token_ids_make_a_route_fail(path: str, ids: Any, model: str, call: Caller) -> None:
    body = to_json({"model": model, TOKEN_ID_FIELDS[path]: ids})
    assume(not FAULTS.search(body))

    check_answer(call("POST", path, body))


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
def test_no_headers_make_a_route_fail(headers: Any, method: str, data: st.DataObject, call: Caller) -> None:
    path = data.draw(st.sampled_from([*POSTS, *GETS, "/nowhere"]))
    examples = body_examples(path) if path in POSTS else []
    body = to_json(data.draw(mutated(examples))) if examples else b""
    assume(not FAULTS.search(body))

    check_answer(call(method, path, body, headers=headers))


@FUZZ
@given(
    start=st.sampled_from(["/", "/v1/models/", "/v1/", "/api/", "/v2/", "//", "/health/", ""]),
    rest=st.one_of(st.text(max_size=40), st.sampled_from([case for case in EDGE_CASES if isinstance(case, str)])),
    query=st.one_of(
        st.binary(max_size=40), st.from_regex(rb"\A(page_size|page_token|endpoint|default_only)=[!-~]{0,9}\Z")
    ),
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
)
def test_no_path_makes_the_server_fail(start: str, rest: str, query: bytes, method: str, call: Caller) -> None:
    check_answer(call(method, start + rest, query=query))


# Without the documentation pages, which take a tenth of a second each and read no query.
_WITH_QUERY = [
    path for path in GETS if DOCUMENT["paths"][path].get("get", {}).get("parameters") or path.startswith("/v1/")
]


@FUZZ
@given(
    path=st.sampled_from(_WITH_QUERY),
    query=st.one_of(st.binary(max_size=40), st.from_regex(rb"\A([a-z_]{1,12}=[!-~]{0,9}&?){1,3}\Z")),
)
def test_no_query_makes_a_route_fail(path: str, query: bytes, call: Caller) -> None:
    check_answer(call("GET", path.replace("{model_id}", "x").replace("{page}", "api"), query=query))
