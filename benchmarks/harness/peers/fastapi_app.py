"""The server that most people write first: FastAPI and sentence-transformers. ``python fastapi_app.py MODEL PORT``.

Its packages are in a separate virtual environment (install.py), so the type checker doesn't know them. The endpoints
are plain functions, so FastAPI runs up to 40 at once in its thread pool. Nothing is tuned, on purpose.
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
    """Return vectors in OpenAI's format."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = model.encode(texts).tolist()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "model": body["model"], "data": data}


@app.post("/v2/rerank")
def rerank(body: dict[str, Any]) -> dict[str, Any]:
    """Return scores in Cohere's format: (1 + cosine) / 2, as nearfar's for an embedding model."""
    cosines = util.cos_sim(model.encode([body["query"]]), model.encode(body["documents"]))[0]
    scores = ((1 + cosines) / 2).tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return {"results": [{"index": index, "relevance_score": scores[index]} for index in order[: body["top_n"]]]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
