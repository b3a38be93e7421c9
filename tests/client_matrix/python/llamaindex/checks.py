"""What LlamaIndex's tests share: every way to call an embedding model, and a reranker on the passages."""

import asyncio

from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from matrix import NEAREST, PASSAGES, QUERY, TEXTS, assert_scores, assert_vectors


def assert_embeds(embedding: BaseEmbedding) -> None:
    """Compare the vectors of texts and queries, synchronous and asynchronous, with a plain request's."""

    async def run() -> list[list[float]]:
        return [await embedding.aget_query_embedding(TEXTS[0]), await embedding.aget_text_embedding(TEXTS[1])]

    assert_vectors([QUERY], [embedding.get_query_embedding(QUERY)])
    assert_vectors(TEXTS, embedding.get_text_embedding_batch(TEXTS))
    assert_vectors(TEXTS[:2], asyncio.run(run()))


def assert_retrieves(embedding: BaseEmbedding) -> None:
    """Check that an in-memory index retrieves the right passage."""
    index = VectorStoreIndex(_nodes(), embed_model=embedding)

    found = index.as_retriever(similarity_top_k=1).retrieve(QUERY)

    assert [PASSAGES[NEAREST]] == [node.text for node in found]


def rank(reranker: BaseNodePostprocessor) -> list[tuple[int, float]]:
    """Rank the passages; return their indices and scores."""
    nodes = [NodeWithScore(node=node, score=0.0) for node in _nodes()]
    found = reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
    return [(PASSAGES.index(node.text), node.score) for node in found]


def assert_ranks(reranker: BaseNodePostprocessor) -> None:
    """Compare the reranker's ``top_n`` passages with a plain request's."""
    assert_scores(rank(reranker), top=reranker.top_n)


def _nodes() -> list[TextNode]:
    return [TextNode(text=passage) for passage in PASSAGES]
