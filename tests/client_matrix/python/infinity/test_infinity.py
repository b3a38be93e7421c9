"""Infinity's own client: embeddings, rerank, and its list of models, which demands owned_by "infinity"."""

import pytest
from infinity_client import AuthenticatedClient
from infinity_client.api.default import classify, embeddings, health, metrics_metrics_get, models, rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import ClassifyInput, OpenAIEmbeddingInputImage, OpenAIEmbeddingInputText, RerankInput
from matrix import KEY, PASSAGES, QUERY, TEXTS, UNKNOWN, URL, WRONG_KEY, assert_scores, assert_vectors


def _client(key: str = KEY) -> AuthenticatedClient:
    return AuthenticatedClient(base_url=URL, token=key, raise_on_unexpected_status=True)


def test_embeddings_of_texts() -> None:
    found = embeddings.sync(client=_client(), body=OpenAIEmbeddingInputText(input_=TEXTS))

    assert_vectors(TEXTS, [item.embedding for item in found.data])
    assert found.usage.prompt_tokens > 0


def test_embeddings_with_dimensions() -> None:
    found = embeddings.sync(client=_client(), body=OpenAIEmbeddingInputText(input_=QUERY, dimensions=64))

    assert_vectors([QUERY], [item.embedding for item in found.data], dimensions=64)


def test_rerank_returns_the_best_first_with_documents() -> None:
    body = RerankInput(query=QUERY, documents=PASSAGES, return_documents=True)

    found = rerank.sync(client=_client(), body=body).results

    assert_scores([(item.index, item.relevance_score) for item in found])
    assert [PASSAGES[item.index] for item in found] == [item.document for item in found]


def test_rerank_returns_top_n() -> None:
    found = rerank.sync(client=_client(), body=RerankInput(query=QUERY, documents=PASSAGES, top_n=2)).results

    assert_scores([(item.index, item.relevance_score) for item in found], top=2)


def test_other_models() -> None:
    found = models.sync(client=_client()).data

    assert all(model.stats["queue_fraction"] == 0 for model in found)
    assert {"embed", "rerank"} <= {task for model in found for task in model.capabilities}


def test_other_health() -> None:
    assert health.sync(client=_client())


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(UnexpectedStatus, match="401"):
        embeddings.sync(client=_client(WRONG_KEY), body=OpenAIEmbeddingInputText(input_=QUERY))


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(UnexpectedStatus, match=UNKNOWN):
        rerank.sync(client=_client(), body=RerankInput(query=QUERY, documents=PASSAGES, model=UNKNOWN))


def test_error_for_what_the_model_cannot_do() -> None:
    images = OpenAIEmbeddingInputImage(input_=["data:image/png;base64,iVBORw0KGgo="])
    calls = {
        "can't classify": lambda: classify.sync(client=_client(), body=ClassifyInput(input_=PASSAGES)),
        "modality isn't supported here": lambda: embeddings.sync(client=_client(), body=images),
    }

    for words, sent in calls.items():
        with pytest.raises(UnexpectedStatus, match=words):
            sent()


def test_other_metrics() -> None:
    found = metrics_metrics_get.sync_detailed(client=_client())

    assert found.status_code == 200
    assert b"nearfar_" in found.content
