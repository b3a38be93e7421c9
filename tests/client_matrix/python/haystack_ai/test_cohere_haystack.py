"""Haystack's Cohere components: text and document embedders, and the ranker."""

import cohere
import pytest
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import CohereDocumentEmbedder, CohereTextEmbedder
from haystack_integrations.components.embedders.cohere.embedding_types import EmbeddingTypes
from haystack_integrations.components.rankers.cohere import CohereRanker
from matrix import (
    FLAKY_URL,
    KEY,
    PASSAGES,
    QUERY,
    TEXTS,
    UNKNOWN,
    URL,
    WRONG_KEY,
    assert_scores,
    assert_vectors,
    limited,
)

DOCUMENTS = [Document(content=text) for text in TEXTS]
RANKED = [Document(content=passage, meta={"index": index}) for index, passage in enumerate(PASSAGES)]


def _options(url: str = URL, key: str = KEY) -> dict[str, object]:
    return {"api_key": Secret.from_token(key), "api_base_url": url}


def _ranking(found: dict[str, list[Document]]) -> list[tuple[int, float]]:
    return [(document.meta["index"], document.score) for document in found["documents"]]


def test_embeddings_of_a_text() -> None:
    found = CohereTextEmbedder(**_options()).run(QUERY)

    assert_vectors([QUERY], [found["embedding"]])
    assert found["meta"]["billed_units"]["input_tokens"] > 0


def test_embeddings_of_documents() -> None:
    found = CohereDocumentEmbedder(**_options(), progress_bar=False, batch_size=2).run(DOCUMENTS)

    assert_vectors(TEXTS, [document.embedding for document in found["documents"]])


def test_embeddings_in_int8() -> None:
    found = CohereTextEmbedder(**_options(), embedding_type=EmbeddingTypes.INT8).run(QUERY)

    assert 384 == len(found["embedding"])
    assert all(number == int(number) and -128 <= number <= 127 for number in found["embedding"])


def test_rerank_returns_the_best_first() -> None:
    assert_scores(_ranking(CohereRanker(**_options()).run(QUERY, RANKED)))


def test_rerank_returns_top_n() -> None:
    assert_scores(_ranking(CohereRanker(**_options(), top_k=2).run(QUERY, RANKED)), top=2)


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(cohere.UnauthorizedError, match="invalid api token"):
        CohereRanker(**_options(key=WRONG_KEY)).run(QUERY, RANKED)


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(cohere.NotFoundError, match=f"model '{UNKNOWN}' not found"):
        CohereTextEmbedder(**_options(), model=UNKNOWN).run(QUERY)


def test_retry_after_a_rate_limit() -> None:
    with limited():
        found = CohereRanker(**_options(FLAKY_URL)).run(QUERY, RANKED)

    assert_scores(_ranking(found))


def test_retry_of_embeddings_after_a_rate_limit() -> None:
    with limited():
        found = CohereTextEmbedder(**_options(FLAKY_URL)).run(QUERY)

    assert_vectors([QUERY], [found["embedding"]])
