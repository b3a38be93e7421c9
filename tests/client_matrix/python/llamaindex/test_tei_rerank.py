"""LlamaIndex's reranker for text-embeddings-inference. It ignores the status and sends the token unchanged."""

import pytest
from checks import assert_ranks, rank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from matrix import FLAKY_URL, KEY, URL, WRONG_KEY, limited


def _reranker(url: str = URL, key: str = KEY, **options: object) -> TextEmbeddingInference:
    return TextEmbeddingInference(base_url=url, auth_token=f"Bearer {key}", **options)


@pytest.mark.parametrize("top_n", [2, 4])
def test_rerank_returns_the_best_first(top_n: int) -> None:
    assert_ranks(_reranker(top_n=top_n))


def test_error_for_a_wrong_key_is_a_response_without_scores() -> None:
    with pytest.raises(AssertionError, match=r"len\(scores\)|^$"):
        rank(_reranker(key=WRONG_KEY))


def test_no_retry_but_a_response_without_scores_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(AssertionError, match=r"len\(scores\)|^$"):
        rank(_reranker(FLAKY_URL))
