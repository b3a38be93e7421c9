"""LanceDB, in a folder, with its OpenAI embedding function."""

from pathlib import Path

import lancedb
import openai
import pytest
from lancedb.embeddings import EmbeddingFunctionRegistry, get_registry
from lancedb.embeddings.openai import OpenAIEmbeddings
from lancedb.pydantic import LanceModel, Vector
from matrix import FLAKY_URL, KEY, NEAREST, PASSAGES, QUERY, URL, WRONG_KEY, assert_vectors, limited

DIMENSIONS = 384  # LanceDB assumes OpenAI's dimensions by default


def _function(url: str = URL, key: str = KEY) -> OpenAIEmbeddings:
    registry: EmbeddingFunctionRegistry = get_registry()
    registry.set_var("key", key)
    named = {"name": "text-embedding-3-small", "dim": DIMENSIONS, "base_url": f"{url}/v1"}
    return registry.get("openai").create(**named, api_key="$var:key")


def test_embeddings_equal_those_of_a_plain_request() -> None:
    assert_vectors(PASSAGES, _function().compute_source_embeddings(PASSAGES))
    assert_vectors([QUERY], _function().compute_query_embeddings(QUERY))


def test_embeddings_find_the_passage(tmp_path: Path) -> None:
    function = _function()

    class Passage(LanceModel):
        text: str = function.SourceField()
        vector: Vector(DIMENSIONS) = function.VectorField()

    table = lancedb.connect(tmp_path).create_table("passages", schema=Passage)
    table.add([{"text": passage} for passage in PASSAGES])

    found = table.search(QUERY).limit(1).to_list()

    assert [PASSAGES[NEAREST]] == [row["text"] for row in found]


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        _function(key=WRONG_KEY).compute_query_embeddings_with_retry("a")


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = _function(FLAKY_URL).compute_source_embeddings_with_retry(PASSAGES)

    assert_vectors(PASSAGES, found)
