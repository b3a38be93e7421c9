"""LlamaIndex's JinaRerank. It only raises RuntimeError."""

import pytest
from checks import assert_ranks, rank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from matrix import FLAKY_URL, KEY, LIMITED, UNKNOWN, URL, WRONG_KEY, limited


def _reranker(url: str = URL, key: str = KEY, **options: object) -> JinaRerank:
    return JinaRerank(api_key=key, base_url=f"{url}/v1", **options)


@pytest.mark.parametrize("top_n", [2, 4])
def test_rerank_returns_the_best_first(top_n: int) -> None:
    assert_ranks(_reranker(top_n=top_n))


def test_error_for_a_wrong_key() -> None:
    with pytest.raises(RuntimeError, match=r"(?i)api (key|token)"):
        rank(_reranker(key=WRONG_KEY))


def test_error_for_an_unknown_model() -> None:
    with pytest.raises(RuntimeError, match=UNKNOWN):
        rank(_reranker(model=UNKNOWN))


def test_no_retry_but_its_own_error_after_a_rate_limit() -> None:
    with limited(requests=1), pytest.raises(RuntimeError, match=LIMITED):
        rank(_reranker(FLAKY_URL))
