"""OpenAI's ``input``: far too many items are refused before they are decoded."""

from __future__ import annotations

import json

import msgspec
import pytest

from nearfar.core.errors import TooManyItems
from nearfar.dialects.openai.embeddings import EMBEDDINGS, EmbeddingsRequest


@pytest.mark.parametrize("items", [[[True]] * 65_537, ["a"] * 131_100 + [True]], ids=["token ids", "texts"])
def test_far_too_many_items_are_refused_before_they_are_decoded(items: list[object]) -> None:
    """The booleans in these lists would be another error if they were decoded."""
    raw = msgspec.Raw(json.dumps(items, separators=(",", ":")).encode())

    with pytest.raises(TooManyItems) as refused:
        EMBEDDINGS.to_job(EmbeddingsRequest(model="text-embedding-3-small", input=raw))

    assert 65_536 == refused.value.limit
