"""LiteLLM's embedding and rerank routes, through its proxy's router: each as a user of its proxy would configure it.

The embedding route huggingface/ isn't among them: it asks the hub for the model's task first.
"""

from typing import Any

import litellm
import pytest
from matrix import KEY, NEAREST, PASSAGES, QUERY, URL, assert_vectors

MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# The model's name in LiteLLM → its api_base. The name selects the route.
EMBEDDINGS = {
    "openai/text-embedding-3-small": f"{URL}/v1",
    f"openai/{MODEL}": f"{URL}/v1",
    f"openai_like/{MODEL}": f"{URL}/v1",
    f"hosted_vllm/{MODEL}": f"{URL}/v1",
    f"infinity/{MODEL}": URL,
    "jina_ai/jina-embeddings-v3": f"{URL}/v1",
    "voyage/voyage-3.5": f"{URL}/v1",
    "cohere/embed-english-v3.0": f"{URL}/v2/embed",
    "ollama/all-minilm": URL,
    f"lm_studio/{MODEL}": f"{URL}/v1",
    f"llamafile/{MODEL}": f"{URL}/v1",
    f"litellm_proxy/{MODEL}": f"{URL}/v1",
    "azure/text-embedding-3-small": URL,
    f"nvidia_nim/{MODEL}": f"{URL}/v1",
}
RERANKS = {
    "cohere/rerank-v3.5": URL,
    "jina_ai/jina-reranker-v2-base-multilingual": URL,
    f"infinity/{MODEL}": URL,
    f"hosted_vllm/{MODEL}": URL,
    "voyage/rerank-2.5": f"{URL}/v1/rerank",
    f"huggingface/{MODEL}": URL,
    f"litellm_proxy/{MODEL}": URL,
    f"together_ai/{MODEL}": URL,
}


def options_of(name: str, base: str) -> dict[str, Any]:
    """Return what a user writes to configure a route."""
    version = {"api_version": "2024-10-21"} if name.startswith("azure/") else {}
    return {"model": name, "api_base": base, "api_key": KEY} | version


def _router(name: str, base: str) -> litellm.Router:
    served = {"model_name": "served", "litellm_params": options_of(name, base)}
    return litellm.Router(model_list=[served], num_retries=0)


@pytest.mark.parametrize("name", EMBEDDINGS)
async def test_embeddings(name: str) -> None:
    found = await _router(name, EMBEDDINGS[name]).aembedding(model="served", input=PASSAGES)

    assert_vectors(PASSAGES, [item["embedding"] for item in found.data])


@pytest.mark.parametrize("name", RERANKS)
async def test_rerank(name: str) -> None:
    found = await _router(name, RERANKS[name]).arerank(model="served", query=QUERY, documents=PASSAGES, top_n=2)

    assert NEAREST == found.results[0]["index"]
    assert 2 == len(found.results)
