"""Hugging Face's InferenceClient, which uses text-embeddings-inference's protocol, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from server_process import ServerProcess

SOURCE, OTHERS = "a cat on the sofa", ["a kitten on the couch", "stock prices fell", "the cat"]


def test_sentence_similarity_returns_cosines(server: ServerProcess, reference: SentenceTransformer) -> None:
    query, *others = reference.encode([SOURCE, *OTHERS], show_progress_bar=False)
    client = InferenceClient(model=f"{server.url}/similarity", token="unused")

    found = client.sentence_similarity(SOURCE, other_sentences=OTHERS)

    assert pytest.approx([float(query @ other) for other in others], abs=1e-4) == found


def test_an_invalid_request_raises_the_clients_own_error(server: ServerProcess) -> None:
    client = InferenceClient(model=f"{server.url}/similarity", token="unused")

    with pytest.raises(HfHubHTTPError, match=r"`inputs.sentences` cannot be empty"):
        client.sentence_similarity(SOURCE, other_sentences=[])


@pytest.mark.parametrize("path", ["", "/", "/embed"])
def test_feature_extraction_works_at_the_root_and_at_embed(
    path: str, server: ServerProcess, reference: SentenceTransformer
) -> None:
    client = InferenceClient(model=f"{server.url}{path}", token="unused")

    vectors = client.feature_extraction([SOURCE, *OTHERS], normalize=True, truncate=True, truncation_direction="left")
    short = client.feature_extraction(SOURCE, dimensions=64)

    expected = reference.encode([SOURCE, *OTHERS], show_progress_bar=False)
    assert pytest.approx(expected, abs=1e-3) == vectors
    assert (1, 64) == short.shape


def test_endpoint_info_and_health_check(server: ServerProcess) -> None:
    client = InferenceClient(model=server.url, token="unused", provider="hf-inference")

    info, is_healthy = client.get_endpoint_info(), client.health_check()

    assert ("sentence-transformers/all-MiniLM-L6-v2", 256) == (info["model_id"], info["max_input_length"])
    assert is_healthy
