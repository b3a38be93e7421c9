"""LangChain's standard tests of embeddings, unit and integration, for each integration that nearfar serves."""

from typing import Any

from langchain_cohere import CohereEmbeddings
from langchain_community.embeddings import InfinityEmbeddings, JinaEmbeddings, jina
from langchain_core.embeddings import Embeddings
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from langchain_voyageai import VoyageAIEmbeddings
from matrix import KEY, URL

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
jina.JINA_API_URL = f"{URL}/v1/embeddings"  # it has no option for it


# Integration → its class and options.
KINDS: dict[str, tuple[type[Embeddings], dict[str, Any]]] = {
    "OpenAI": (OpenAIEmbeddings, {"model": MODEL, "base_url": f"{URL}/v1", "api_key": KEY}),
    "Cohere": (CohereEmbeddings, {"model": "embed-english-v3.0", "base_url": URL, "cohere_api_key": KEY}),
    "Ollama": (OllamaEmbeddings, {"model": MODEL, "base_url": URL, "validate_model_on_init": True}),
    "Voyage": (VoyageAIEmbeddings, {"model": "voyage-3.5", "voyage_api_key": KEY, "base_url": f"{URL}/v1"}),
    "Jina": (JinaEmbeddings, {"model_name": "jina-embeddings-v3", "jina_api_key": KEY}),
    "Infinity": (InfinityEmbeddings, {"model": MODEL, "infinity_api_url": URL}),
    "HuggingFace": (HuggingFaceEndpointEmbeddings, {"model": URL, "huggingfacehub_api_token": KEY}),
}


def _standard(suite: type, kind: type[Embeddings], options: dict[str, Any]) -> type:
    """Return a class of one of LangChain's suites for an integration."""
    names = {"embeddings_class": property(lambda _: kind), "embedding_model_params": property(lambda _: options)}
    return type(suite.__name__, (suite,), names)


for name, (kind, options) in KINDS.items():
    for suite in (EmbeddingsUnitTests, EmbeddingsIntegrationTests):
        globals()[f"Test{name}{suite.__name__}"] = _standard(suite, kind, options)
