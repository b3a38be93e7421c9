"""LlamaIndex's CohereRerank."""

import cohere
import pytest
from checks import assert_ranks, rank
from llama_index.postprocessor.cohere_rerank import CohereRerank
from matrix import FLAKY_URL, KEY, UNKNOWN, URL, WRONG_KEY, limited


@pytest.mark.parametrize("top_n", [2, 4])
def test_rerank_returns_the_best_first(top_n: int) -> None:
    assert_ranks(CohereRerank(api_key=KEY, base_url=URL, top_n=top_n))


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(cohere.UnauthorizedError, match="invalid api token"):
        rank(CohereRerank(api_key=WRONG_KEY, base_url=URL))


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(cohere.NotFoundError, match=f"model '{UNKNOWN}' not found"):
        rank(CohereRerank(api_key=KEY, base_url=URL, model=UNKNOWN))


def test_retry_after_a_rate_limit() -> None:
    with limited():
        assert_ranks(CohereRerank(api_key=KEY, base_url=FLAKY_URL))
