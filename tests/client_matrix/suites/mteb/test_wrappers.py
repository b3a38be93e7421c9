"""mteb's wrappers of OpenAI's and Cohere's clients: their vectors, and whole evaluations of its small tasks."""

import os
from functools import partial
from typing import Any

import mteb
import numpy as np
import pytest
from matrix import KEY, PASSAGES, QUERY, URL, assert_vectors, call
from mteb.mocks import mock_tasks
from mteb.models.model_implementations.cohere_models import CohereTextEmbeddingModel, model_prompts
from mteb.models.model_implementations.openai_models import OpenAIModel
from mteb.types import PromptType
from openai import OpenAI
from torch.utils.data import DataLoader

os.environ |= {"CO_API_URL": URL, "CO_API_KEY": KEY}
COHERE = "Cohere/Cohere-embed-english-v3.0"

# Vendor → its wrapper. mteb's own entry for OpenAI asks for 1,536 dimensions, which this model doesn't have.
WRAPPERS = {
    "openai": lambda: OpenAIModel(
        "text-embedding-3-small", max_tokens=8191, embed_dim=384, client=OpenAI(base_url=f"{URL}/v1", api_key=KEY)
    ),
    "cohere": lambda: mteb.get_model(COHERE),
}
TASKS = (
    mock_tasks.MockBitextMiningTask,
    mock_tasks.MockClassificationTask,
    mock_tasks.LegacyMockClusteringFastTask,
    mock_tasks.MockInstructionReranking,
    mock_tasks.MockPairClassificationTask,
    mock_tasks.MockRerankingTask,
    mock_tasks.MockRetrievalTask,
    mock_tasks.MockSTSTask,
    mock_tasks.MockSummarizationTask,
)


def _encode(wrapper: Any, texts: list[str], prompt_type: PromptType | None = None) -> np.ndarray:
    inputs = DataLoader([{"text": text} for text in texts], batch_size=2)
    metadata = mock_tasks.MockRetrievalTask.metadata
    return wrapper.encode(inputs, task_metadata=metadata, hf_split="test", hf_subset="default", prompt_type=prompt_type)


@pytest.mark.parametrize("vendor", WRAPPERS)
@pytest.mark.parametrize("prompt_type", [None, PromptType.query, PromptType.document])
def test_vectors(vendor: str, prompt_type: PromptType | None) -> None:
    assert_vectors(PASSAGES, _encode(WRAPPERS[vendor](), PASSAGES, prompt_type).tolist())


def test_an_empty_text_of_openai_is_a_vector_of_zeros() -> None:
    found = _encode(WRAPPERS["openai"](), [QUERY, "", PASSAGES[0]])

    assert [True, False, True] == found.any(axis=1).tolist()


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary"])
def test_cohere_embedding_types(kind: str) -> None:
    wrapper = CohereTextEmbeddingModel(COHERE, "1", model_prompts=model_prompts, embedding_type=kind)
    body = {
        "model": "embed-english-v3.0",
        "texts": PASSAGES,
        "input_type": "search_document",
        "embedding_types": [kind],
    }
    sent: Any = call("/v2/embed", body)

    found = _encode(wrapper, PASSAGES, PromptType.document)

    expected = np.array(sent["embeddings"][kind])
    bits = partial(np.unpackbits, axis=1, bitorder="little")  # mteb reads the lowest bit first
    signs = bits(expected.astype(np.uint8)) * 2.0 - 1 if kind == "binary" else expected
    np.testing.assert_array_equal(signs, found)


@pytest.mark.parametrize("vendor", WRAPPERS)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_evaluations(vendor: str, task: type) -> None:
    found = mteb.evaluate(WRAPPERS[vendor](), task(), cache=None, co2_tracker=False, show_progress_bar=False)

    [result] = found.task_results
    assert np.isfinite(result.get_score())
