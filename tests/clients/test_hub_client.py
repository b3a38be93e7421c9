"""Hugging Face's own client, which speaks text-embeddings-inference's protocol, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from server_process import ServerProcess

SOURCE, OTHERS = "a cat on the sofa", ["a kitten on the couch", "stock prices fell", "the cat"]


def test_sentences_are_compared(server: ServerProcess, reference: SentenceTransformer) -> None:
    query, *others = reference.encode([SOURCE, *OTHERS], show_progress_bar=False)
    client = InferenceClient(model=f"{server.url}/similarity", token="unused")

    found = client.sentence_similarity(SOURCE, other_sentences=OTHERS)

    assert pytest.approx([float(query @ other) for other in others], abs=1e-4) == found


def test_what_is_refused_is_the_clients_own_error(server: ServerProcess) -> None:
    client = InferenceClient(model=f"{server.url}/similarity", token="unused")

    with pytest.raises(HfHubHTTPError, match=r"`inputs.sentences` cannot be empty"):
        client.sentence_similarity(SOURCE, other_sentences=[])


@pytest.mark.parametrize("path", ["", "/", "/embed"])
def test_features_are_extracted_at_the_server_s_own_address(
    path: str, server: ServerProcess, reference: SentenceTransformer
) -> None:
    client = InferenceClient(model=f"{server.url}{path}", token="unused")

    vectors = client.feature_extraction([SOURCE, *OTHERS], normalize=True, truncate=True, truncation_direction="left")
    short = client.feature_extraction(SOURCE, dimensions=64)

    expected = reference.encode([SOURCE, *OTHERS], show_progress_bar=False)
    assert pytest.approx(expected, abs=1e-3) == vectors
    assert (1, 64) == short.shape


def test_the_endpoint_tells_of_itself(server: ServerProcess) -> None:
    client = InferenceClient(model=server.url, token="unused", provider="hf-inference")

    about, is_well = client.get_endpoint_info(), client.health_check()

    assert ("sentence-transformers/all-MiniLM-L6-v2", 256) == (about["model_id"], about["max_input_length"])
    assert is_well
