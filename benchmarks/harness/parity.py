"""The served pipeline's numbers next to sentence-transformers' in float32, checkpoint by checkpoint, in one process.

Besides the model that is measured, these are the tests' tiny checkpoints: seeded, and real in everything but size.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nearfar import ModelSettings, Settings, create_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.settings import Device, Dtype

Array = npt.NDArray[np.float32]

# The largest distance between unit vectors, or between scores from 0 to 1. Rounding makes up to half of it in half
# precision, with the large weights of tiny checkpoints; wrong numbers make about 1.
TOLERANCE: dict[str, float] = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1.2e-1}
_EMBEDDERS = {"bert": "mean", "xlm-roberta": "cls", "modernbert": "mean", "qwen3": "lasttoken"}
_QUERY = "which animal is quick?"
_DOCUMENT_CHARS = 16  # so that a pair isn't cut: cutting differs by protocol
_TEXTS_PER_REQUEST = 4  # several requests at once, so that batches have rows of several
_TESTS = Path(__file__).parents[2] / "tests/support"


@dataclass(frozen=True)
class Reference:
    """A checkpoint's texts and what sentence-transformers computes: unit vectors (N, D), or scores (N,)."""

    name: str
    model: str
    texts: tuple[str, ...]
    expected: Array

    def distance(self, found: Array) -> float:
        """Return the largest distance between a found row and its expected one."""
        return float(np.linalg.norm((found - self.expected).reshape(len(found), -1), axis=1).max())


def references(folder: str, texts: Sequence[str], tiny: Path) -> list[Reference]:
    """Compute the references of the model and of tiny checkpoints, which are written into a folder."""
    sys.path.append(str(_TESTS))
    from checkpoints import CORPUS, write_files, write_steps, write_transformer

    found = [Reference("the model", folder, tuple(texts), _embed(folder, texts))]
    for family, pooling in _EMBEDDERS.items():
        written = write_transformer(tiny / f"tiny-{family}", family)
        write_steps(written, pooling)
        found.append(Reference(written.name, str(written), CORPUS, _embed(str(written), CORPUS)))
    written = write_transformer(tiny / "tiny-reranker", "bert", labels=1)
    tokenizer = json.loads((written / "tokenizer_config.json").read_text())
    names = ["input_ids", "token_type_ids", "attention_mask"]  # the types are left out otherwise
    write_files(written, {"tokenizer_config.json": {**tokenizer, "model_input_names": names}})
    short = tuple(text[:_DOCUMENT_CHARS] for text in CORPUS)
    found.append(Reference(written.name, str(written), short, _score(str(written), short)))
    return found


def _embed(folder: str, texts: Sequence[str]) -> Array:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    return _unit(np.asarray(model.encode(list(texts), batch_size=32, show_progress_bar=False), dtype=np.float32))


def _score(folder: str, texts: Sequence[str]) -> Array:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(folder, device="cpu", local_files_only=True)
    return np.asarray(model.predict([(_QUERY, text) for text in texts], show_progress_bar=False), dtype=np.float32)


def measure_distances(checked: Sequence[Reference], engine: str, device: Device, dtype: Dtype) -> list[float]:
    """Serve all checkpoints in this process, and return how far each one's answers are from its reference."""
    return asyncio.run(_measure_distances(checked, engine, device, dtype))


async def _measure_distances(checked: Sequence[Reference], engine: str, device: Device, dtype: Dtype) -> list[float]:
    import httpx2

    models = tuple(ModelSettings(name=each.model, aliases=(each.name,)) for each in checked)
    app: Any = create_app(Settings(models=models, engine=engine, device=device, dtype=dtype))
    async with app.lifespan():
        await app.state.fleet.opened()
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=None) as client:
            return [each.distance(await _ask(client, each)) for each in checked]


async def _ask(client: Any, reference: Reference) -> Array:
    """Return the served vectors or scores of the reference's texts."""
    texts = reference.texts
    if reference.expected.ndim == 1:
        body = {"model": reference.name, "query": _QUERY, "documents": texts}
        results = (await _post(client, "/v2/rerank", body))["results"]
        scores = {result["index"]: result["relevance_score"] for result in results}
        return np.array([scores[at] for at in range(len(texts))], dtype=np.float32)
    parts = [texts[at : at + _TEXTS_PER_REQUEST] for at in range(0, len(texts), _TEXTS_PER_REQUEST)]
    bodies = [{"model": reference.name, "input": part} for part in parts]
    answers = await asyncio.gather(*(_post(client, "/v1/embeddings", body) for body in bodies))
    return _unit(np.array([item["embedding"] for answer in answers for item in answer["data"]], dtype=np.float32))


async def _post(client: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    answer.raise_for_status()
    decoded: dict[str, Any] = answer.json()
    return decoded


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
