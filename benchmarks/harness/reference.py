"""Expected answers: float32 vectors by sentence-transformers, and how far a server's responses are from them.

The vectors are computed in a separate process before any server starts, so that nothing competes for the machine.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.launcher import run_module

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.load.spec import StreamResult
    from harness.scenarios import Request, RequestSet

Vectors = dict[str, npt.NDArray[np.float32]]  # text → unit vector


def reference_vectors(model: str, texts: Iterable[str]) -> Vectors:
    """Return the texts' unit vectors, computed in a separate process."""
    unique = sorted(set(texts))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        run_module("harness.reference", json.dumps({"model": model, "texts": unique, "file": str(file)}))
        return dict(zip(unique, _normalized(np.load(file)), strict=True))


def accuracy(
    requests: RequestSet, result: StreamResult, expected: Vectors, *, scores_are_cosines: bool = False
) -> dict[str, float]:
    """Compare the kept responses with the reference: cosines of vectors, or differences of scores.

    Scores should be (1 + cosine) / 2, or plain cosines with ``scores_are_cosines``.
    """
    pairs = [(requests.requests[index], json.loads(body)) for index, body in result.kept]
    if not pairs:
        return {}
    if requests.is_rerank:
        differences = (_score_difference(*pair, expected, scores_are_cosines=scores_are_cosines) for pair in pairs)
        return {"max_score_difference": max(differences)}
    cosines = np.concatenate([_cosines(*pair, expected) for pair in pairs])
    return {"min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def _cosines(request: Request, body: dict[str, Any], expected: Vectors) -> npt.NDArray[np.float32]:
    entries = sorted(body["data"], key=lambda entry: entry["index"])
    actual = np.stack([_decoded(entry["embedding"]) for entry in entries])
    reference = np.stack([expected[text] for text in request.texts])
    cosines: npt.NDArray[np.float32] = (_normalized(actual) * reference).sum(1)  # (B, D) → (B,)
    return cosines


def _score_difference(request: Request, body: dict[str, Any], expected: Vectors, *, scores_are_cosines: bool) -> float:
    cosines = [float(expected[request.query] @ expected[text]) for text in request.texts]
    scores = cosines if scores_are_cosines else [(1 + cosine) / 2 for cosine in cosines]
    results = body["results"]
    if len(results) != len(scores):
        raise ValueError(f"{len(results)} scores for {len(scores)} documents")
    differences: list[float] = [abs(entry["relevance_score"] - scores[entry["index"]]) for entry in results]
    return max(differences)


def _decoded(embedding: list[float] | str) -> npt.NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def _normalized(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def main() -> None:
    """Compute the vectors requested on stdin."""
    from sentence_transformers import SentenceTransformer

    request = json.load(sys.stdin)
    model = SentenceTransformer(request["model"], device="cpu")
    np.save(request["file"], model.encode(request["texts"], batch_size=32, show_progress_bar=False))


if __name__ == "__main__":
    main()
