"""langchain-openai, which by default sends OpenAI token ids instead of text."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import numpy as np
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr
from server_process import ServerProcess
from texts import varied_texts

from nearfar.models.hub.builtin import BUILTIN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentence_transformers import SentenceTransformer

# A chunk that cuts a character in half would decode to U+FFFD; none of these texts is cut.
TEXTS = [text for text in varied_texts(120) if len(text) < 2000]


@contextmanager
def _embeddings(
    server: ServerProcess, model: str, truncated: list[int] | None = None, **options: Any
) -> Iterator[OpenAIEmbeddings]:
    """Yield LangChain's embeddings and close its connections, which it would leave open.

    The number of truncated tokens of each response is appended to ``truncated``.
    """

    def record(response: httpx2.Response) -> None:
        if truncated is not None:
            truncated.append(int(response.headers["x-nearfar-truncated-tokens"]))

    with httpx2.Client(timeout=60, event_hooks={"response": [record]}) as connections:
        key = SecretStr("unused")
        yield OpenAIEmbeddings(
            model=model, base_url=f"{server.url}/v1", api_key=key, http_client=connections, max_retries=0, **options
        )


@pytest.mark.usefixtures("_offline_tiktoken")
@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-ada-002"])
def test_token_ids_return_the_same_vectors_as_the_text(
    server: ServerProcess, reference: SentenceTransformer, model: str
) -> None:
    with (
        _embeddings(server, model) as by_ids,
        _embeddings(server, model, check_embedding_ctx_length=False) as by_text,
    ):
        from_ids, from_text = np.array(by_ids.embed_documents(TEXTS)), np.array(by_text.embed_documents(TEXTS))
        query = by_ids.embed_query(TEXTS[0])

    expected = reference.encode(TEXTS, show_progress_bar=False)
    assert (from_ids * from_text).sum(1).min() >= 0.99999
    assert (from_ids * expected).sum(1).min() >= 0.99999
    assert np.dot(query, expected[0]) >= 0.99999


@pytest.mark.usefixtures("_offline_tiktoken")
def test_a_text_of_several_chunks_is_accepted_chunk_by_chunk(server: ServerProcess) -> None:
    """20,000 words are three chunks of up to 8,191 of OpenAI's tokens, each far over the model's own 256."""
    with _embeddings(server, "text-embedding-3-small") as embeddings:
        vectors = embeddings.embed_documents(["word " * 20_000, "another"])

    assert [384, 384] == [len(vector) for vector in vectors]
    assert abs(np.linalg.norm(vectors[0]) - 1) < 1e-5


VOCABULARIES = {
    "text-embedding-3-small": "cl100k_base",
    "gpt-4o-embed": "o200k_base",
    "gpt-oss-embed": "o200k_harmony",
}
CHUNK = 8191  # OpenAI tokens: the most that LangChain sends as one input


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server with aliases for which LangChain uses OpenAI's other vocabularies."""
    config = tmp_path_factory.mktemp("aliased") / "nearfar.toml"
    config.write_text(f'[[models]]\nname = "{BUILTIN_NAMES[0]}"\naliases = {[*VOCABULARIES][1:]}\n')
    with ServerProcess("--config", str(config), "--engine", "torch", "--device", "cpu") as server:
        yield server


@pytest.mark.usefixtures("_offline_tiktoken")
@pytest.mark.parametrize(("model", "vocabulary"), VOCABULARIES.items())
def test_the_vector_of_a_long_document_is_the_mean_of_its_chunks(
    aliased: ServerProcess, model: str, vocabulary: str
) -> None:
    """The server truncates each chunk to the model's 256 tokens and reports that, for ids and for text."""
    document = " ".join(" ".join(varied_texts(900)[30:]).split()[:20_000])
    encoding = tiktoken.encoding_for_model(model)
    ids = encoding.encode(document)
    chunks = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
    with httpx.Client(base_url=aliased.url, timeout=60) as plain:
        replies = [plain.post("/v1/embeddings", json={"model": model, "input": encoding.decode(one)}) for one in chunks]
    vectors = np.array([reply.json()["data"][0]["embedding"] for reply in replies])
    expected = np.average(vectors, axis=0, weights=[len(one) for one in chunks])
    truncated: list[int] = []

    with _embeddings(aliased, model, truncated) as embeddings:
        [vector] = embeddings.embed_documents([document])

    assert vocabulary == encoding.name
    assert len(chunks) >= 3
    assert np.dot(vector, expected) / np.linalg.norm(expected) >= 0.999
    assert [sum(int(reply.headers["x-nearfar-truncated-tokens"]) for reply in replies)] == truncated
    assert truncated[0] > 15_000
