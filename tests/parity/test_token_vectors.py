"""A vector for each token, of whatever model; and which end of a long text is kept where all of it is wanted."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import write_files, write_transformer
from conftest import running
from msgspec.structs import replace
from small_models import write_colbert, write_m3, write_splade
from transformers import AutoModel, AutoTokenizer

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import EmptyInput, WrongTask
from nearfar.core.jobs import ClassifyJob, RepresentJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nearfar.core.jobs import Represented
    from nearfar.core.types import FloatArray
    from nearfar.serving.service import Service

pytestmark = pytest.mark.anyio

TEXTS = ("jumps over the lazy dog", "x", "a question?")
LONG = "quick brown jumps over lazy while slow sleeps place text among sort what " * 4


@asynccontextmanager
async def serving(*folders: Path) -> AsyncIterator[Service]:
    models = tuple(ModelSettings(name=str(folder)) for folder in folders)
    async with running(Settings(models=models, engine="torch", device="cpu")) as app:
        service: Service = app.state.service
        yield service


def arrays(done: Represented) -> list[FloatArray]:
    return [one.multi_vector for one in done.texts if one.multi_vector is not None]


def assert_same(expected: list[Any], found: list[FloatArray]) -> None:
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
async def test_an_embedding_model_gives_its_hidden_states_of_all_tokens(family: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, family)
    model: Any = AutoModel.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    async with serving(folder) as service:
        found = await service.token_vectors(RepresentJob(model=None, inputs=TEXTS), ANONYMOUS)

    with torch.no_grad():
        each = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy() for text in TEXTS]
    assert_same(each, arrays(found))
    assert sum(map(len, each)) == found.usage.tokens


async def test_it_puts_the_prompt_before_them_that_it_embeds_with(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, "bert")
    prompts = {"prompts": {"query": "fox, ", "web": "dog: "}, "default_prompt_name": "web"}
    write_files(folder, {"config_sentence_transformers.json": prompts})
    job = RepresentJob(model=None, inputs=TEXTS[:1])

    async with serving(folder) as service:
        plain = await service.token_vectors(job, ANONYMOUS)
        asked = await service.token_vectors(replace(job, role="query"), ANONYMOUS)
        by_hand = [
            await service.token_vectors(replace(job, inputs=(prompt + TEXTS[0],), role="document"), ANONYMOUS)
            for prompt in ("dog: ", "fox, ")
        ]

    assert_same(arrays(by_hand[0]), arrays(plain))
    assert_same(arrays(by_hand[1]), arrays(asked))


@pytest.mark.parametrize("kind", ["colbert", "bge-m3"])
async def test_a_model_that_has_vectors_for_tokens_gives_those(kind: str, tmp_path: Path) -> None:
    if kind == "colbert":
        write_colbert(tmp_path / kind, "bert")
    else:
        write_m3(tmp_path / kind)
    other = write_transformer(tmp_path / "other", "bert")
    job = RepresentJob(model=None, inputs=TEXTS, role="query")

    async with serving(other, tmp_path / kind) as service:
        expected = await service.represent(replace(job, model=kind), ANONYMOUS)
        named = await service.token_vectors(replace(job, model=kind), ANONYMOUS)
        default = await service.token_vectors(job, ANONYMOUS)
        others = await service.token_vectors(replace(job, model="other"), ANONYMOUS)

    assert_same(arrays(expected), arrays(named))
    assert (expected.usage, kind, kind, "other") == (named.usage, named.info.name, default.info.name, others.info.name)


async def test_a_model_of_sparse_weights_has_none_and_nothing_is_refused(tmp_path: Path) -> None:
    write_splade(tmp_path / "splade", "bert")

    async with serving(tmp_path / "splade", write_transformer(tmp_path / "other", "bert")) as service:
        with pytest.raises(WrongTask):
            await service.token_vectors(RepresentJob(model="splade", inputs=TEXTS), ANONYMOUS)
        with pytest.raises(EmptyInput):
            await service.token_vectors(RepresentJob(model="other", inputs=()), ANONYMOUS)
        with pytest.raises(WrongTask, match="can't return sparse vectors"):
            await service.represent(RepresentJob(model="other", inputs=TEXTS, outputs=("sparse",)), ANONYMOUS)


async def test_the_end_of_a_long_text_may_be_kept(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, "bert")
    end = " ".join(LONG.split()[-46:])
    job = RepresentJob(model=None, inputs=(LONG,), keep="end")

    async with serving(folder) as service:
        tokens, whole = await service.token_vectors(job, ANONYMOUS), await service.represent(job, ANONYMOUS)
        expected = await service.token_vectors(replace(job, inputs=(end,)), ANONYMOUS)
        one = await service.represent(replace(job, inputs=(end,)), ANONYMOUS)

    assert_same(arrays(expected), arrays(tokens))
    np.testing.assert_allclose(np.asarray(one.texts[0].dense), np.asarray(whole.texts[0].dense), atol=1e-5)
    assert len(LONG.split()) - 46 == tokens.usage.truncated_tokens


async def test_a_classifier_may_keep_the_end_of_a_text_or_of_the_second_of_a_pair(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, "bert", labels=3)
    words = LONG.split()
    inputs = (LONG, ("quick turtle", LONG), ("quick", "lazy"))
    ends = (" ".join(words[-46:]), ("quick turtle", " ".join(words[-43:])), ("quick", "lazy"))

    async with serving(folder) as service:
        found = await service.classify(ClassifyJob(model=None, inputs=inputs, keep="end"), ANONYMOUS)
        expected = await service.classify(ClassifyJob(model=None, inputs=ends), ANONYMOUS)
        starts = await service.classify(ClassifyJob(model=None, inputs=inputs), ANONYMOUS)

    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert np.abs(found.scores[:2] - starts.scores[:2]).max() > 1e-3
    assert found.usage == starts.usage
