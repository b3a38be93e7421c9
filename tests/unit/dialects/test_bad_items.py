"""Texts that are cut in the middle of an emoji are read, and what can't be read is named by its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import calling

if TYPE_CHECKING:
    import httpx
    from litestar import Litestar

pytestmark = pytest.mark.anyio

_MODEL = '"model": "all-minilm"'
_PAIR = '"query": "q", "documents": ["a", %s]'
# path → a body with a place for an item of a list, and that item's name in an error
LISTS = {
    "/v1/embeddings": ('{"model": "text-embedding-3-small", "input": ["a", %s]}', "input[1]"),
    "/jina/v1/embeddings": (f'{{{_MODEL}, "input": ["a", %s]}}', "input[1]"),
    "/voyage/v1/embeddings": (f'{{{_MODEL}, "input": ["a", %s]}}', "input[1]"),
    "/v2/embed": ('{"model": "embed-v4.0", "input_type": "search_query", "texts": ["a", %s]}', "texts[1]"),
    "/v1/rerank": (f"{{{_PAIR}}}", "documents[1]"),
    "/v2/rerank": (f'{{"model": "rerank-v3.5", {_PAIR}}}', "documents[1]"),
    "/voyage/v1/rerank": (f"{{{_MODEL}, {_PAIR}}}", "documents[1]"),
    "/rerank": (f"{{{_PAIR}}}", "documents[1]"),
    "/score": ('{"text_1": "a", "text_2": ["a", %s]}', "text_2[1]"),
    "/pooling": ('{"task": "token_embed", "input": ["a", %s]}', "input[1]"),
    "/embed": ('{"inputs": ["a", %s]}', "inputs[1]"),
    "/tokenize": ('{"inputs": ["a", %s]}', "inputs[1]"),
    "/api/embed": (f'{{{_MODEL}, "input": ["a", %s]}}', "input[1]"),
    "/api/v1/embed": ('{"texts": ["a", %s]}', "texts[1]"),
    "/represent": ('{"input": ["a", %s]}', "input[1]"),
}

WITH_OBJECTS = {"/v1/rerank", "/v2/rerank", "/rerank", "/score", "/jina/v1/embeddings"}  # items may be objects


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00", r"\ud83d\u0041", r"\ude00\ud83d", r"\ud83d end \ud83d\ude00"])
@pytest.mark.parametrize("path", LISTS)
async def test_half_of_a_surrogate_pair_is_read_as_the_replacement_character(
    path: str, half: str, every_kind: Litestar
) -> None:
    async with calling(every_kind) as client:
        answer = await client.post(path, content=(LISTS[path][0] % f'"cat {half}"').encode())

    assert 200 == answer.status_code, answer.text


async def test_the_text_around_half_of_a_pair_is_kept(builtin: httpx.AsyncClient) -> None:
    async def vector(text: str) -> object:
        body = f'{{"model": "all-minilm", "input": "{text}"}}'.encode()
        return (await builtin.post("/api/embed", content=body)).json()["embeddings"][0]

    assert await vector(r"cat \ud83d dog \ud83d\ude00 \\ud83d") == await vector("cat \ufffd dog \U0001f600 \\\\ud83d")


async def test_ollama_s_routes_read_bytes_that_are_not_utf_8_and_others_refuse_them(builtin: httpx.AsyncClient) -> None:
    """A text cut between the bytes of a character: Go reads each byte as U+FFFD."""
    cut = b'{"model": "all-minilm", "input": ["ok", "caf\xc3", "\xe2\x82 cat"]}'

    read = await builtin.post("/api/embed", content=cut)
    expected = await builtin.post(
        "/api/embed", json={"model": "all-minilm", "input": ["ok", "caf\ufffd", "\ufffd\ufffd cat"]}
    )
    refused = await builtin.post("/v1/embeddings", content=cut)

    assert read.json()["embeddings"] == expected.json()["embeddings"]
    assert (400, True) == (refused.status_code, "the body is not UTF-8" in refused.text)


@pytest.mark.parametrize(("item", "kind"), [("null", "null"), ("{}", "an object"), ("true", "true or false")])
@pytest.mark.parametrize("path", LISTS)
async def test_an_item_of_another_kind_is_named_by_its_index(
    path: str, item: str, kind: str, every_kind: Litestar
) -> None:
    body, name = LISTS[path]

    async with calling(every_kind) as client:
        answer = await client.post(path, content=(body % item).encode())

    if path in WITH_OBJECTS and item == "{}":
        assert answer.status_code in {400, 422}
        assert "1" in answer.text
    else:
        assert answer.status_code in {400, 422}
        assert f"{name} must be text" in answer.text
        assert f"not {kind}" in answer.text
