"""Vectors made of hidden states: pooled as the engines pool, not normalised, or of each part of a text read whole."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from checkpoints import HIDDEN, write_files, write_steps, write_transformer
from conftest import running
from transformers import AutoModel, AutoTokenizer

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import EmptyInput, EngineError, InputError, InvalidTokenIds, TextTooLong, TooManyTokens
from nearfar.core.jobs import EmbedJob, TokenLimits
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.engines.transformer.heads import PoolingHead
from nearfar.models.recipe.dense import POOLINGS
from nearfar.models.recipe.recipe import Recipe
from nearfar.serving.pipeline import embedding
from nearfar.serving.postprocess.pooling import normalize, pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from nearfar.core.types import FloatArray
    from nearfar.models.recipe.dense import Pooling
    from nearfar.serving.service import Service

pytestmark = pytest.mark.anyio

CHUNKS = ("the quick brown fox jumps", "over the lazy dog", "while the slow turtle sleeps", "x")
PROMPTS = {"prompts": {"query": "a question: ", "document": ""}}
TOKEN_LIMITS = TokenLimits(per_text=9, per_request=5)
TEXTS = ("the fox", "a query, a document; a question?", "x", "the fox")


@asynccontextmanager
async def serving(folder: Path | None = None, **settings: Any) -> AsyncIterator[Service]:
    models = (ModelSettings(name=str(folder or BUILTIN_MODEL)),)
    async with running(Settings(models=models, device="cpu", **({"engine": "torch"} | settings))) as app:
        service: Service = app.state.service
        yield service


def write(folder: Path, pooling: Pooling = "mean", *, normalize: bool = True, family: str = "bert") -> Path:
    write_transformer(folder, family)
    kinds = ("Transformer", "Pooling", "Normalize")[: 2 + normalize]
    modules = [
        {
            "idx": at,
            "name": str(at),
            "path": ["", "1_Pooling", "2_Normalize"][at],
            "type": f"sentence_transformers.models.{name}",
        }
        for at, name in enumerate(kinds)
    ]
    steps = {"word_embedding_dimension": HIDDEN, "pooling_mode": pooling}
    return write_files(
        folder,
        {"modules.json": modules, "1_Pooling/config.json": steps, "config_sentence_transformers.json": PROMPTS},
    )


def states_of(folder: Path, ids: Sequence[int]) -> FloatArray:
    model: Any = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found: FloatArray = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    return found


def by_hand(folder: Path, chunks: Sequence[str], prompt: str = "") -> FloatArray:
    """Do as the paper on late chunking does, with transformers."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    begun = tokenizer(prompt + chunks[0], add_special_tokens=False, return_offsets_mapping=True)
    first = [
        token for token, (_, end) in zip(begun["input_ids"], begun["offset_mapping"], strict=True) if end <= len(prompt)
    ]
    own = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in chunks]
    own[0] = begun["input_ids"][len(first) :]
    around, inside = (tokenizer("x", add_special_tokens=special)["input_ids"] for special in (True, False))
    at = around.index(inside[0])
    before, after = around[:at], around[at + len(inside) :]
    states = states_of(folder, [*before, *first, *(token for part in own for token in part), *after])
    start = len(before) + len(first)
    vectors = []
    for part in own:
        vectors.append(states[start : start + len(part)].mean(axis=0))
        start += len(part)
    return np.stack(vectors)


def normalised(vectors: FloatArray) -> FloatArray:
    made: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_is_that_of_the_engines(mode: Pooling) -> None:
    states = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
    recipe = Recipe(
        architecture="",
        model_type="",
        task="embed",
        max_tokens=9,
        hidden_size=5,
        pooling=("mean", mode),
        normalize=False,
    )

    expected = PoolingHead(recipe)(torch.from_numpy(states)[None], torch.ones((1, 7), dtype=torch.long))

    np.testing.assert_allclose(pool(states, recipe.pooling), expected[0], rtol=1e-6, atol=1e-6)


def test_a_vector_of_zeros_has_no_direction() -> None:
    with pytest.raises(EngineError, match="a vector's components are all zero"):
        normalize(np.zeros((1, 3), dtype=np.float32))


@pytest.mark.parametrize("mode", POOLINGS)
async def test_vectors_that_are_not_normalised_are_those_before(mode: Pooling, tmp_path: Path) -> None:
    write(tmp_path / "unit", mode)
    write(tmp_path / "raw", mode, normalize=False)
    job = EmbedJob(model=None, inputs=TEXTS)

    async with serving(tmp_path / "unit") as service:
        raw = await service.embed(msgspec.structs.replace(job, normalize=False), ANONYMOUS)
        few = await service.embed(msgspec.structs.replace(job, normalize=False, dimensions=5), ANONYMOUS)
        normalized = await service.embed(msgspec.structs.replace(job, normalize=True), ANONYMOUS)
        plain = await service.embed(job, ANONYMOUS)
    async with serving(tmp_path / "raw") as service:
        expected = await service.embed(job, ANONYMOUS)
        off = await service.embed(msgspec.structs.replace(job, normalize=False), ANONYMOUS)
        on = await service.embed(msgspec.structs.replace(job, normalize=True, dimensions=5), ANONYMOUS)

    np.testing.assert_allclose(expected.vectors, raw.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(expected.vectors[:, :5], few.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normalised(expected.vectors[:, :5]), on.vectors, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(expected.vectors, off.vectors)
    np.testing.assert_array_equal(plain.vectors, normalized.vectors)
    assert (raw.vectors[0] == raw.vectors[3]).all()
    assert plain.usage == raw.usage
    assert plain.int8_range == normalized.int8_range == round(4 / math.sqrt(HIDDEN), 6)
    assert [None] * 4 == [one.int8_range for one in (raw, few, expected, off)]
    assert pytest.approx(4 / math.sqrt(5), rel=1e-5) == on.int8_range


async def test_many_texts_are_pooled_in_parts(tmp_path: Path) -> None:
    texts = tuple(f"the fox {at} " * 8 for at in range(700)) * 2
    job = EmbedJob(model=None, inputs=texts, normalize=False)

    async with serving(write(tmp_path / "unit")) as service:
        found = await service.embed(job, ANONYMOUS)
        some = await service.embed(msgspec.structs.replace(job, inputs=texts[600:601]), ANONYMOUS)

    assert found.usage.tokens > 2 * embedding._MAX_STATES
    np.testing.assert_array_equal(found.vectors[:700], found.vectors[700:])
    np.testing.assert_allclose(some.vectors[0], found.vectors[600], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "llama"])
@pytest.mark.parametrize("prompt", [None, "query"])
async def test_each_chunk_is_the_mean_over_its_own_tokens_in_the_whole_text(
    prompt: str | None, family: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", family=family)
    job = EmbedJob(model=None, inputs=CHUNKS[:3] if family == "bert" else ("a fox", "x", "fox"), late_chunking=True)
    job = msgspec.structs.replace(job, prompt=prompt)

    async with serving(folder) as service:
        found = await service.embed(job, ANONYMOUS)
        raw = await service.embed(msgspec.structs.replace(job, normalize=False), ANONYMOUS)
        few = await service.embed(msgspec.structs.replace(job, dimensions=6), ANONYMOUS)
        apart = await service.embed(msgspec.structs.replace(job, late_chunking=False), ANONYMOUS)

    expected = by_hand(folder, job.inputs, "a question: " if prompt else "")  # type: ignore[arg-type]  # all are texts
    np.testing.assert_allclose(normalised(expected), found.vectors, rtol=0, atol=1e-4)
    np.testing.assert_allclose(expected, raw.vectors, rtol=0, atol=1e-4)
    np.testing.assert_allclose(normalised(expected[:, :6]), few.vectors, rtol=0, atol=1e-4)
    assert (found.vectors * apart.vectors).sum(axis=1).max() < 0.999
    assert found.usage.tokens < apart.usage.tokens
    assert 0 == found.usage.truncated_tokens
    assert (None, found.int8_range) == (raw.int8_range, apart.int8_range)


async def test_a_model_that_normalises_nothing_has_late_chunks_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", normalize=False)
    job = EmbedJob(model=None, inputs=CHUNKS[:2], late_chunking=True)

    async with serving(folder) as service:
        plain = await service.embed(job, ANONYMOUS)
        on = await service.embed(msgspec.structs.replace(job, normalize=True), ANONYMOUS)

    np.testing.assert_allclose(by_hand(folder, CHUNKS[:2]), plain.vectors, rtol=0, atol=1e-4)
    np.testing.assert_allclose(normalised(plain.vectors), on.vectors, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overflow", [None, "truncate"])
async def test_chunks_that_are_too_long_together_are_refused_and_never_cut(overflow: Any, tmp_path: Path) -> None:
    job = EmbedJob(model=None, inputs=("fox",) * 20, late_chunking=True, on_overflow=overflow)

    async with serving(write(tmp_path / "model")) as service:
        with pytest.raises(TooManyTokens) as refused:
            await service.embed(job, ANONYMOUS)
        with pytest.raises(TextTooLong, match="text 1 has 3 tokens; at most 2"):
            await service.embed(msgspec.structs.replace(job, inputs=("x", "fox"), max_tokens=2), ANONYMOUS)
        with pytest.raises(TooManyTokens, match="6 tokens together; at most 5"):
            await service.embed(
                msgspec.structs.replace(job, inputs=("fox", "fox"), token_limits=TOKEN_LIMITS), ANONYMOUS
            )
        fits = await service.embed(msgspec.structs.replace(job, inputs=("fox",) * 15), ANONYMOUS)

    assert (60, 46) == (refused.value.tokens, refused.value.limit)
    assert 15 * 3 + 2 == fits.usage.tokens


async def test_a_chunk_without_tokens_is_refused_by_its_place(tmp_path: Path) -> None:
    async with serving(write(tmp_path / "model")) as service:
        with pytest.raises(EmptyInput, match="text 1 has no token this model knows"):
            await service.embed(EmbedJob(model=None, inputs=("fox", " "), late_chunking=True), ANONYMOUS)


@pytest.mark.parametrize("mode", ["cls", "lasttoken", "max"])
async def test_late_chunking_needs_mean_pooling(mode: Pooling, tmp_path: Path) -> None:
    async with serving(write(tmp_path / "model", mode)) as service:
        with pytest.raises(InputError, match=f"and this one has {mode}"):
            await service.embed(EmbedJob(model=None, inputs=CHUNKS, late_chunking=True), ANONYMOUS)


@pytest.mark.parametrize("wish", [{"normalize": False}, {"late_chunking": True}])
async def test_layers_after_pooling_refuse_what_is_made_of_hidden_states(wish: dict[str, Any], tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "bert")
    write_steps(folder, "mean")

    async with serving(folder) as service:
        with pytest.raises(InputError, match="layers after pooling"):
            await service.embed(EmbedJob(model=None, inputs=CHUNKS, **wish), ANONYMOUS)


async def test_ids_of_the_models_own_vocabulary_are_the_text_they_stand_for(tmp_path: Path) -> None:
    """Special tokens among them are added by the model."""
    folder = write(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = tuple(tokenizer("the quick fox")["input_ids"])

    async with serving(folder) as service:
        text = await service.embed(EmbedJob(model=None, inputs=("the quick fox",)), ANONYMOUS)
        found = await service.embed(EmbedJob(model=None, inputs=(ids, "the quick fox"), vocabulary=None), ANONYMOUS)
        with pytest.raises(InvalidTokenIds, match="99999 is not in this model's vocabulary"):
            await service.embed(EmbedJob(model=None, inputs=((99999,),), vocabulary=None), ANONYMOUS)

    assert tokenizer.cls_token_id == ids[0]
    np.testing.assert_allclose(np.concatenate([text.vectors] * 2), found.vectors, atol=1e-6)
    assert 2 * text.usage.tokens == found.usage.tokens


async def test_a_failure_among_hidden_states_is_no_answer() -> None:
    async with serving(engine="fake") as service:
        for wish in ({"normalize": False}, {"late_chunking": True}):
            with pytest.raises(EngineError):
                await service.embed(EmbedJob(model=None, inputs=("fine", "nan"), **wish), ANONYMOUS)  # type: ignore[arg-type]  # a row of the table
