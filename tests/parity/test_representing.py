"""The service with models that compute token vectors or sparse vectors."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import write_files, write_transformer
from conftest import running, until
from small_models import write_colbert, write_m3, write_splade
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import WrongTask
from nearfar.core.jobs import ClassifyJob, EmbedJob, RankJob, RepresentJob
from nearfar.core.types import Representation
from nearfar.serving.postprocess.scores import max_sims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nearfar.serving.service import Service

pytestmark = pytest.mark.anyio

QUERY = "a question? the fox"
DOCUMENTS = ("jumps over the lazy dog", "? ! ,", "a question? an answer! the quick brown fox", "numbers 0 1 2", "fox")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Service]:
    settings = Settings(models=(ModelSettings(name=str(folder), engine="torch"),), device="cpu")
    async with running(settings) as app:
        service: Service = app.state.service
        yield service


async def test_tokens_vectors_rank_by_max_sim(tmp_path: Path) -> None:
    expansion = {"strategy": "fixed", "attend": False, "length": 16}
    model = write_colbert(tmp_path / "colbert", "bert", query_expansion=expansion)
    job = RankJob(model=None, query=QUERY, documents=DOCUMENTS)

    async with serving(tmp_path / "colbert") as service:
        found = await service.rank(job, ANONYMOUS)

    expected = model.similarity(model.encode_query([QUERY]), model.encode_document(list(DOCUMENTS)))[0].numpy()
    assert np.argsort(-expected).tolist() == [one.index for one in found.results]
    for one in found.results:
        assert one.score == pytest.approx((1 + expected[one.index] / 16) / 2, abs=1e-5)


async def test_comparing_after_a_forward_waits_for_no_other_text(tmp_path: Path) -> None:
    """The threads that read texts, and the gate before them, may be full of other requests' by then."""
    write_colbert(tmp_path / "colbert", "bert")
    job = RankJob(model=None, query=QUERY, documents=("the lazy dog " * 100,) * 4)
    forwards, texts = threading.Event(), threading.Event()

    async with serving(tmp_path / "colbert") as service:
        model: Any = (await service._access._fleet.lease(None, ("rank",)))[0].model
        try:
            engine: Any = model.lane._engine
            represent = engine.represent
            engine.represent = lambda batch: forwards.wait() and represent(batch)
            asked = asyncio.create_task(service.rank(job, ANONYMOUS))
            await until(lambda: model.lane.depth().tokens > 0)
            read = [asyncio.create_task(service._tokenizers.run(2000, texts.wait)) for _ in range(2)]
            await until(lambda: service._tokenizers._waiting == 4000)
            forwards.set()
            async with asyncio.timeout(30):
                found = await asked
        finally:
            forwards.set()
            texts.set()
        await asyncio.gather(*read)

    assert 4 == len(found.results)


def test_a_document_without_vectors_comes_last() -> None:
    """Punctuation may be all there is of it."""
    query = Representation(multi_vector=np.eye(2, 4, dtype=np.float32))
    opposite = Representation(multi_vector=-np.eye(1, 4, dtype=np.float32))
    empty = Representation(multi_vector=np.zeros((0, 4), dtype=np.float32))

    raw, scores = max_sims(query, [empty, query, opposite])

    assert [-2, 2, -1] == raw.tolist()
    assert [0, 1, 0.25] == scores.tolist()


async def test_sparse_vectors_rank_by_their_product(tmp_path: Path) -> None:
    model = write_splade(tmp_path / "splade", "bert")

    async with serving(tmp_path / "splade") as service:
        found = await service.rank(RankJob(model=None, query=QUERY, documents=DOCUMENTS), ANONYMOUS)

    vectors = model.encode([QUERY, *DOCUMENTS], convert_to_sparse_tensor=False).numpy()
    for one in found.results:
        product = float(vectors[0] @ vectors[1 + one.index])
        assert one.score == pytest.approx(product / (1 + product), abs=1e-5)


async def test_one_call_gives_all_that_a_text_becomes(tmp_path: Path) -> None:
    async with serving(write_m3(tmp_path / "bge-m3")) as service:
        whole = await service.represent(RepresentJob(model=None, inputs=DOCUMENTS, outputs=("sparse",)), ANONYMOUS)
        dense = await service.embed(EmbedJob(model=None, inputs=DOCUMENTS), ANONYMOUS)

    found = np.stack([np.asarray(one.dense) for one in whole.texts])
    np.testing.assert_allclose(found, dense.vectors, rtol=0, atol=1e-6)
    assert whole.usage == dense.usage
    assert all(one.sparse is not None and one.multi_vector is not None for one in whole.texts)


async def test_a_model_without_one_vector_is_not_asked_for_it(tmp_path: Path) -> None:
    write_colbert(tmp_path / "colbert", "bert")

    async with serving(tmp_path / "colbert") as service:
        with pytest.raises(WrongTask, match="can't embed"):
            await service.embed(EmbedJob(model="colbert", inputs=("a",)), ANONYMOUS)
        with pytest.raises(WrongTask, match="can't return sparse vectors"):
            await service.represent(RepresentJob(model="colbert", inputs=("a",), outputs=("sparse",)), ANONYMOUS)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("labels", [1, 3])
async def test_labels_have_probabilities(labels: int, independent: bool, tmp_path: Path) -> None:
    """They sum to 1, unless each is for itself, as a single one always is."""
    options: dict[str, Any] = {"problem_type": "multi_label_classification"} if independent else {}
    folder = write_transformer(tmp_path / "classifier", "xlm-roberta", labels=labels, **options)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = (*DOCUMENTS[2:4], (QUERY, DOCUMENTS[0]))

    async with serving(folder) as service:
        found = await service.classify(ClassifyJob(model=None, inputs=inputs), ANONYMOUS)
        raw = await service.classify(ClassifyJob(model=None, inputs=inputs, raw_scores=True), ANONYMOUS)

    tokens = [tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt") for text in inputs]
    with torch.inference_mode():
        logits = torch.cat([model(**of).logits for of in tokens])
    expected = logits.sigmoid() if independent or labels == 1 else logits.softmax(-1)
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw.scores, logits, rtol=0, atol=1e-4)
    assert tuple(f"LABEL_{at}" for at in range(labels)) == found.info.labels


async def test_a_classifier_of_several_labels_ranks_nothing(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "classifier", "bert", labels=3)
    config = json.loads((folder / "config.json").read_text())
    write_files(folder, {"config.json": config | {"id2label": {"0": "no", "1": "maybe", "2": "yes"}}})

    async with serving(folder) as service:
        found = await service.classify(ClassifyJob(model="classifier", inputs=("fox",)), ANONYMOUS)
        with pytest.raises(WrongTask, match="can't rank"):
            await service.rank(RankJob(model="classifier", query=QUERY, documents=DOCUMENTS), ANONYMOUS)

    assert ("no", "maybe", "yes") == found.info.labels
