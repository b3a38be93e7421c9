"""The server that most people write first: FastAPI before sentence-transformers. ``python peer_fastapi.py MODEL PORT``.

Its packages are in a virtual environment of their own (peer_install.py), unknown to the type checker. A plain function
as the endpoint, so FastAPI runs it in its thread pool, 40 at once. Nothing is tuned, on purpose.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer, util

model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()


@app.post("/v1/embeddings")
def embed(body: dict[str, Any]) -> dict[str, Any]:
    """Answer in OpenAI's shape."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = model.encode(texts).tolist()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": data}


@app.post("/v2/rerank")
def rerank(body: dict[str, Any]) -> dict[str, Any]:
    """Answer in Cohere's shape, with our scores of an embedding model: (1 + cosine) / 2."""
    cosines = util.cos_sim(model.encode([body["query"]]), model.encode(body["documents"]))[0]
    scores = ((1 + cosines) / 2).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return {"results": [{"index": index, "relevance_score": scores[index]} for index in order[: body["top_n"]]]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
