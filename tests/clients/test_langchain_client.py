"""langchain-openai, which by default sends token ids of OpenAI's vocabulary instead of text."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr
from texts import varied_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from process import ServerProcess
    from sentence_transformers import SentenceTransformer

# Bytes that are no text come back as the replacement sign only where a chunk cuts a character; none does here.
TEXTS = [text for text in varied_texts(120) if len(text) < 2000]


@contextmanager
def _embeddings(server: ServerProcess, model: str, **options: Any) -> Iterator[OpenAIEmbeddings]:
    """Give LangChain's embeddings with connections that are closed at the end, as it leaves them open by itself."""
    with httpx2.Client(timeout=60) as connections:
        key = SecretStr("unused")
        yield OpenAIEmbeddings(
            model=model, base_url=f"{server.url}/v1", api_key=key, http_client=connections, max_retries=0, **options
        )


@pytest.mark.usefixtures("_offline_tiktoken")
@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-ada-002"])
def test_token_ids_give_the_same_vectors_as_the_text(
    server: ServerProcess, reference: SentenceTransformer, model: str
) -> None:
    with (
        _embeddings(server, model) as by_ids,
        _embeddings(server, model, check_embedding_ctx_length=False) as by_text,
    ):
        texts = server.share(TEXTS)
        from_ids, from_text = np.array(by_ids.embed_documents(texts)), np.array(by_text.embed_documents(texts))
        query = by_ids.embed_query(texts[0])

    expected = reference.encode(texts, show_progress_bar=False)
    assert (from_ids * from_text).sum(1).min() >= 0.99999
    assert (from_ids * expected).sum(1).min() >= 0.99999
    assert np.dot(query, expected[0]) >= 0.99999


@pytest.mark.usefixtures("_offline_tiktoken")
def test_a_text_of_many_chunks_is_accepted_chunk_by_chunk(server: ServerProcess) -> None:
    """20,000 words are three chunks of up to 8,191 of OpenAI's tokens, each far over the model's own 256."""
    with _embeddings(server, "text-embedding-3-small") as embeddings:
        vectors = embeddings.embed_documents(["word " * 20_000, "another"])

    assert [384, 384] == [len(vector) for vector in vectors]
    assert abs(np.linalg.norm(vectors[0]) - 1) < 1e-5
