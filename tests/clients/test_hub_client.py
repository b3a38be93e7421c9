"""Hugging Face's own client, which speaks text-embeddings-inference's protocol, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

if TYPE_CHECKING:
    from process import ServerProcess
    from sentence_transformers import SentenceTransformer

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
