"""Which model a name means, on the routes of several vendors."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_transformer
from conftest import calling, running

from nearfar import ModelSettings, Settings
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.http.app import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

pytestmark = pytest.mark.anyio

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/embeddings", {"input": "fox"}),
    "ollama": ("/api/embed", {"input": "fox"}),
    "cohere": ("/v2/embed", {"texts": ["fox"], "input_type": "search_query", "embedding_types": ["float"]}),
}
MINILM_NAMES = (
    *("all-minilm", "all-minilm:latest", "all-minilm:l6-v2", "all-minilm:22m"),
    *("all-MiniLM-L6-v2", "ALL-minilm-l6-v2", BUILTIN_MODEL),
)
LAST_PARTS = {
    "all-minilm:33m": "all-MiniLM-L12-v2",
    "nomic-embed-text": "nomic-embed-text-v1.5",
    "mxbai-embed-large:latest": "mxbai-embed-large-v1",
    "bge-m3": "bge-m3",
    "bge-large": "bge-large-en-v1.5",
    "snowflake-arctic-embed": "snowflake-arctic-embed-l",
    "snowflake-arctic-embed:22m": "snowflake-arctic-embed-xs",
    "snowflake-arctic-embed2": "snowflake-arctic-embed-l-v2.0",
    "paraphrase-multilingual": "paraphrase-multilingual-mpnet-base-v2",
    "granite-embedding": "granite-embedding-30m-english",
    "embeddinggemma": "embeddinggemma-300m",
    "qwen3-embedding:0.6b": "Qwen3-Embedding-0.6B",
    "jina-embeddings-v3": "jina-embeddings-v3-hf",
}
OPEN = (*LAST_PARTS, "all-minilm", "jina-embeddings-v4", "voyage-4-nano")
CLOSED = ("text-embedding-3-small", "text-embedding-3-small:latest", "embed-english-v3.0", "voyage-3")
OTHER = 32  # dimensions of what ``folder`` writes; the built-in model has 384


@asynccontextmanager
async def serving(*models: ModelSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with running(Settings(models=models, engine="fake")) as app, calling(app) as client:
        yield client


def folder(tmp_path: Path, name: str, *aliases: str) -> ModelSettings:
    return ModelSettings(name=str(write_transformer(tmp_path / name, "bert")), aliases=aliases)


async def answered(client: httpx.AsyncClient, name: str) -> list[int]:
    """Return the dimensions that each route answers with, or the status of its refusal."""
    replies = [await client.post(path, json={"model": name, **body}) for path, body in ROUTES.values()]
    if not all(reply.is_success for reply in replies):
        return [reply.status_code for reply in replies]
    openai, ollama, cohere = [reply.json() for reply in replies]
    vectors = (openai["data"][0]["embedding"], ollama["embeddings"][0], cohere["embeddings"]["float"][0])
    return [len(vector) for vector in vectors]


async def test_all_minilm_is_its_own_model_and_not_the_first_one(tmp_path: Path) -> None:
    async with serving(folder(tmp_path, "first"), ModelSettings(name=BUILTIN_MODEL)) as client:
        found = {name: await answered(client, name) for name in MINILM_NAMES}

    assert found == dict.fromkeys(MINILM_NAMES, [384] * 3)


async def test_the_default_server_answers_to_every_name_of_its_model() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        found = {name: await answered(client, name) for name in MINILM_NAMES}
        ranked = await client.post("/api/rerank", json={"model": "all-minilm", "query": "fox", "documents": ["dog"]})
        larger = await answered(client, "all-minilm:33m")

    assert found == dict.fromkeys(MINILM_NAMES, [384] * 3)
    assert 200 == ranked.status_code
    assert [404] * 3 == larger


@pytest.mark.parametrize(("vendors", "hub"), LAST_PARTS.items(), ids=LAST_PARTS)
async def test_a_vendors_name_of_an_open_model_means_that_model(vendors: str, hub: str, tmp_path: Path) -> None:
    async with serving(ModelSettings(name=BUILTIN_MODEL), folder(tmp_path, "second", f"owner/{hub}")) as client:
        found = {name: await answered(client, name) for name in (vendors, hub, hub.upper())}

    assert found == dict.fromkeys(found, [OTHER] * 3)


async def test_an_open_model_that_is_not_served_is_not_found_and_closed_vendors_names_mean_the_default(
    tmp_path: Path,
) -> None:
    rank = {"query": "fox", "documents": ["dog"]}
    async with serving(folder(tmp_path, "first"), folder(tmp_path, "second")) as client:
        found = {name: await answered(client, name) for name in (*OPEN, *CLOSED)}
        listed = await client.get("/v1/models/all-minilm")
        shown = await client.post("/api/show", json={"model": "all-minilm"})
        ranked = [
            (await client.post("/v2/rerank", json={"model": name, **rank})).status_code
            for name in ("jina-reranker-v2-base-multilingual", "jina-reranker-v1-base-en", "rerank-v3.5")
        ]

    assert found == dict.fromkeys(OPEN, [404] * 3) | dict.fromkeys(CLOSED, [OTHER] * 3)
    assert [404, 404] == [listed.status_code, shown.status_code]
    assert [404, 200, 200] == ranked


async def test_the_built_in_model_alone_stands_in_for_jinas_models() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        found = await answered(client, "jina-embeddings-v3")

    assert [384] * 3 == found


async def test_a_name_of_two_models_is_refused_with_both(tmp_path: Path) -> None:
    models = [folder(tmp_path, name, f"{name}/bge-m3") for name in ("one", "two")]
    async with serving(*models) as client:
        refusals = [await client.post(path, json={"model": "bge-m3", **body}) for path, body in ROUTES.values()]
        whole = await answered(client, "two/bge-m3")
        other_owner = await answered(client, "three/bge-m3")

    assert [400] * 3 == [refusal.status_code for refusal in refusals]
    assert all("'bge-m3' could be one/bge-m3 or two/bge-m3" in refusal.text for refusal in refusals)
    assert [OTHER] * 3 == whole
    assert [404] * 3 == other_owner


async def test_a_whole_name_wins_over_the_last_part_of_another(tmp_path: Path) -> None:
    models = (ModelSettings(name=BUILTIN_MODEL, aliases=("owner/bge-m3",)), folder(tmp_path, "bge-m3"))
    async with serving(*models) as client:
        assert [OTHER] * 3 == await answered(client, "bge-m3")


async def test_a_model_that_was_lost_is_not_replaced_by_one_with_the_same_last_part(tmp_path: Path) -> None:
    lost = ModelSettings(name=str(tmp_path / "missing"), aliases=("one/bge-m3", BUILTIN_MODEL))
    settings = Settings(models=(lost, folder(tmp_path, "two", "two/bge-m3")), engine="fake", verify=False)
    app = create_app(settings, must_open=False)
    async with app.lifespan(), calling(app) as client:
        found = [await answered(client, name) for name in ("bge-m3", "all-minilm", "two/bge-m3")]

    assert [[503] * 3, [503] * 3, [OTHER] * 3] == found


@pytest.mark.parametrize(("gone_first", "status"), [(True, 503), (False, 200)])
async def test_a_default_model_that_is_unavailable_is_not_replaced_by_the_next(
    tmp_path: Path, *, gone_first: bool, status: int
) -> None:
    """Its vectors would be those of another model. A model after the default is missed by its own name alone."""
    gone = ModelSettings(name=str(tmp_path / "gone"))
    models = (gone, ModelSettings(name=BUILTIN_MODEL)) if gone_first else (ModelSettings(name=BUILTIN_MODEL), gone)
    app = create_app(Settings(models=models, engine="fake", verify=False), must_open=False)
    async with app.lifespan(), calling(app) as client:
        await app.state.fleet.opened()
        by_default, by_name, other = [
            (await client.post("/v1/embeddings", json={"model": name, "input": "fox"})).status_code
            for name in ("text-embedding-3-small", "gone", BUILTIN_MODEL)
        ]

    assert (status, 503, 200) == (by_default, by_name, other)
