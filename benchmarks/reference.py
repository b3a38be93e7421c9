"""What the answers should be: float32 vectors by sentence-transformers, and how far the kept answers are from them.

The vectors are computed in a process of its own, before any server is started, so that nothing competes.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cells import Load, Question
    from orders import Figure

Vectors = dict[str, npt.NDArray[np.float32]]  # text → unit vector


def reference_vectors(model: str, texts: Iterable[str]) -> Vectors:
    """Compute the vectors of the texts, in another process."""
    unique = sorted(set(texts))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        order = json.dumps({"model": model, "texts": unique, "path": str(path)})
        subprocess.run([sys.executable, __file__], input=order, text=True, check=True)  # noqa: S603 — this file
        return dict(zip(unique, _unit(np.load(path)), strict=True))


def closeness(load: Load, figure: Figure, expected: Vectors, *, plain: bool = False) -> dict[str, float]:
    """Compare the kept answers with the reference: cosines of vectors, or differences of scores.

    Scores should be (1 + cosine) / 2, or ``plain`` cosines.
    """
    questions = [(load.questions[number], json.loads(answer)) for number, answer in figure.kept]
    if not questions:
        return {}
    if load.is_rerank:
        worst = max(_score_difference(asked, said, expected, plain=plain) for asked, said in questions)
        return {"max_score_difference": worst}
    cosines = np.concatenate([_cosines(asked, said, expected) for asked, said in questions])
    return {"min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def _cosines(asked: Question, said: dict[str, Any], expected: Vectors) -> npt.NDArray[np.float32]:
    got = np.stack([_vector(entry["embedding"]) for entry in sorted(said["data"], key=lambda entry: entry["index"])])
    wanted = np.stack([expected[text] for text in asked.texts])
    cosines: npt.NDArray[np.float32] = (_unit(got) * wanted).sum(1)  # (B, D) → (B,)
    return cosines


def _score_difference(asked: Question, said: dict[str, Any], expected: Vectors, *, plain: bool) -> float:
    cosines = [float(expected[asked.query] @ expected[text]) for text in asked.texts]
    wanted = cosines if plain else [(1 + cosine) / 2 for cosine in cosines]
    results = said["results"]
    if len(results) != len(wanted):
        raise ValueError(f"{len(results)} scores for {len(wanted)} documents")
    differences: list[float] = [abs(entry["relevance_score"] - wanted[entry["index"]]) for entry in results]
    return max(differences)


def _vector(said: list[float] | str) -> npt.NDArray[np.float32]:
    if isinstance(said, str):
        return np.frombuffer(base64.b64decode(said), dtype="<f4")
    return np.array(said, dtype=np.float32)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = vectors / lengths
    return unit


def main() -> None:
    """Compute the vectors that stdin asks for."""
    from sentence_transformers import SentenceTransformer

    order = json.load(sys.stdin)
    model = SentenceTransformer(order["model"], device="cpu")
    np.save(order["path"], model.encode(order["texts"], batch_size=32, show_progress_bar=False))


if __name__ == "__main__":
    main()
