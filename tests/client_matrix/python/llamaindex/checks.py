"""What LlamaIndex's rows share: an embedding is asked in each of its ways, and a reranker for the passages."""

import asyncio

from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from matrix import NEAREST, PASSAGES, QUERY, TEXTS, assert_scores, assert_vectors


def assert_embeds(embedding: BaseEmbedding) -> None:
    """Hold texts and a query, in both of its ways, against a plain call; then let an index find a passage."""

    async def ask() -> list[list[float]]:
        return [await embedding.aget_query_embedding(TEXTS[0]), await embedding.aget_text_embedding(TEXTS[1])]

    assert_vectors([QUERY], [embedding.get_query_embedding(QUERY)])
    assert_vectors(TEXTS, embedding.get_text_embedding_batch(TEXTS))
    assert_vectors(TEXTS[:2], asyncio.run(ask()))


def assert_retrieves(embedding: BaseEmbedding) -> None:
    """Let an index in memory find the passage."""
    index = VectorStoreIndex(_nodes(), embed_model=embedding)

    found = index.as_retriever(similarity_top_k=1).retrieve(QUERY)

    assert [PASSAGES[NEAREST]] == [node.text for node in found]


def rank(reranker: BaseNodePostprocessor) -> list[tuple[int, float]]:
    """Rank the passages; give their places and scores."""
    nodes = [NodeWithScore(node=node, score=0.0) for node in _nodes()]
    found = reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
    return [(PASSAGES.index(node.text), node.score) for node in found]


def assert_ranks(reranker: BaseNodePostprocessor) -> None:
    """Hold the ranking of as many passages as it gives against a plain call."""
    assert_scores(rank(reranker), top=reranker.top_n)


def _nodes() -> list[TextNode]:
    return [TextNode(text=passage) for passage in PASSAGES]
