"""LlamaIndex's VoyageAIRerank. It has no base URL argument, so its Voyage client is replaced by one for this server."""

import pytest
import voyageai
from checks import assert_ranks, rank
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank
from matrix import FLAKY_URL, KEY, LIMITED, UNKNOWN, URL, WRONG_KEY, limited
from voyageai import error


def _reranker(url: str = URL, key: str = KEY, model: str = "rerank-2.5", **options: object) -> VoyageAIRerank:
    reranker = VoyageAIRerank(model=model, api_key=key, **options)
    reranker._client = voyageai.Client(api_key=key, base_url=f"{url}/v1")
    return reranker


@pytest.mark.parametrize("top_n", [2, 4])
def test_rerank_returns_the_best_first(top_n: int) -> None:
    assert_ranks(_reranker(top_n=top_n))


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(error.AuthenticationError, match=r"(?i)api (key|token)"):
        rank(_reranker(key=WRONG_KEY))


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(error.VoyageError, match=UNKNOWN):
        rank(_reranker(model=UNKNOWN))


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(error.RateLimitError, match=LIMITED):
        rank(_reranker(FLAKY_URL))
