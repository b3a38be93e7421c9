"""POST /represent: what each text's outputs come with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import calling

if TYPE_CHECKING:
    from litestar import Litestar

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("role", ["query", "document"])
async def test_each_row_of_a_multi_vector_has_its_token(every_kind: Litestar, role: str) -> None:
    asked = {"model": "colbert", "input": ["the cat, here", "a"], "input_type": role, "outputs": ["multi_vector"]}
    async with calling(every_kind) as client:
        texts = (await client.post("/represent", json=asked)).json()["data"]
        ids = [[token] for token in texts[0]["token_ids"]]
        tokens = (
            await client.post("/decode", json={"model": "colbert", "ids": ids, "skip_special_tokens": False})
        ).json()
        dense = (await client.post("/represent", json={"input": "a", "outputs": ["dense"]})).json()["data"][0]

    assert [len(text["multi_vector"]) for text in texts] == [len(text["token_ids"]) for text in texts]
    assert ("," in tokens) == (role == "query")  # a document's punctuation has no vectors
    assert "token_ids" not in dense
