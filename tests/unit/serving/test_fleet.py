"""Several models in one process: their names, tasks, prompts and engines."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import pytest
from checkpoints import write_files, write_transformer
from conftest import calling, ignore, running
from nearfar_fakes import FakeKind, vector_of

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import CheckpointError, EngineUnavailable, SettingsError, SetupError
from nearfar.core.jobs import EmbedJob
from nearfar.core.settings import BUILTIN_MODEL
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import EngineChoice
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row
from nearfar.serving.registry.description import SCORE_OF_PAIRS, SCORE_OF_VECTORS
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.names import VendorNames
from nearfar.serving.registry.opening import Opener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from nearfar.core.settings import Device
    from nearfar.engines.base import Engine

pytestmark = pytest.mark.anyio

QUERY = "the quick brown fox"
DOCUMENTS = ["jumps over the lazy dog", "a question? an answer!", "numbers 0 1 2", "jumps over the lazy dog"]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("models") / "reranker", "bert", labels=1)


@pytest.fixture
def prompted(tmp_path: Path) -> Path:
    """Make a model that wants a prompt before queries, another before documents, and the latter by default."""
    folder = write_transformer(tmp_path / "prompted", "bert")
    prompts = {"query": "a query, ", "document": "a document; "}
    return write_files(
        folder, {"config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": "document"}}
    )


@pytest.fixture(scope="module")
async def several(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    plain = write_transformer(tmp_path_factory.mktemp("models") / "plain", "bert")
    models = (
        ModelSettings(name=BUILTIN_MODEL, engine="torch", aliases=("mini",)),
        ModelSettings(name=str(plain), engine="fake"),
        ModelSettings(name=str(reranker), engine="torch"),
    )
    async with running(Settings(models=models, device="cpu")) as app, calling(app) as client:
        yield client


@asynccontextmanager
async def only(folder: Path, *, on_overflow: str = "truncate") -> AsyncIterator[httpx.AsyncClient]:
    model = ModelSettings(
        name=str(folder), engine="fake", on_overflow="error" if on_overflow == "error" else "truncate"
    )
    async with running(Settings(models=(model,))) as app, calling(app) as client:
        yield client


async def test_a_vendor_s_name_means_its_model_where_that_is_served(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "v3", "bert")
    models = (
        ModelSettings(name=BUILTIN_MODEL),
        ModelSettings(name=str(folder), aliases=("jinaai/jina-embeddings-v3",)),
    )
    async with running(Settings(models=models, engine="fake")) as app, calling(app) as client:
        answered = {
            name: (await client.post("/v1/embeddings", json={"model": name, "input": "fox"})).json()["model"]
            for name in ("jina-embeddings-v3", "jina-embeddings-v3:latest", "voyage-3", BUILTIN_MODEL)
        }
        listed, default = [
            (await client.get(f"/v1/models/{name}")).json()["int8_range"] for name in ("jina-embeddings-v3", "voyage-3")
        ]
        unknown = await client.post("/v1/embeddings", json={"model": "v-3", "input": "fox"})

    assert ["v3", "v3", BUILTIN_MODEL, BUILTIN_MODEL] == list(answered.values())
    assert listed != default
    assert 404 == unknown.status_code


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("text-embedding-3-small", BUILTIN_MODEL),
        ("mini", BUILTIN_MODEL),
        (BUILTIN_MODEL, BUILTIN_MODEL),
        ("plain", "plain"),
    ],
)
async def test_an_embedding_model_is_found_by_name_by_alias_or_as_the_default(
    several: httpx.AsyncClient, asked: str, served: str
) -> None:
    answer = await several.post("/v1/embeddings", json={"model": asked, "input": "hello"})

    assert served == answer.json()["model"]


async def test_the_reranker_is_the_default_for_ranking_and_an_embedding_model_ranks_when_named(
    several: httpx.AsyncClient,
) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}

    default = await several.post("/v2/rerank", json={"model": "rerank-v3.5", **body})
    unnamed = await several.post("/v1/rerank", json=body)
    named = await several.post("/v2/rerank", json={"model": "mini", **body})

    assert default.json()["results"] == unnamed.json()["results"]
    assert default.json()["results"] != named.json()["results"]


async def test_a_cross_encoder_cannot_embed(several: httpx.AsyncClient) -> None:
    answer = await several.post("/v1/embeddings", json={"model": "reranker", "input": "hello"})

    assert 403 == answer.status_code
    assert "not allowed to generate embeddings" in answer.json()["error"]["message"]


async def test_info_describes_each_model_and_how_it_scores(several: httpx.AsyncClient) -> None:
    models = (await several.get("/info")).json()["models"]

    assert [SCORE_OF_VECTORS, SCORE_OF_VECTORS, SCORE_OF_PAIRS] == [model["score"] for model in models]
    assert [["embed", "rank"], ["embed", "rank"], ["rank", "classify"]] == [model["tasks"] for model in models]
    assert ["torch", "fake", "torch"] == [model["engine"] for model in models]
    assert ["1_Pooling/config.json", "default for encoders; the folder has no modules.json", ""] == [
        model["pooling_source"] for model in models
    ]


async def test_every_model_and_alias_is_listed(several: httpx.AsyncClient) -> None:
    listed = (await several.get("/v1/models")).json()["data"]

    assert [BUILTIN_MODEL, "mini", "plain", "reranker"] == [model["id"] for model in listed]


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({"query": "a query, ", "document": "a document; "}, "document", "a query, ", "a document; "),
        ({"query": "a query, "}, "query", "a query, ", ""),
        ({"query": "a query, ", "document": ""}, "query", "a query, ", ""),
        ({"query": "a query, ", "passage": "numbers "}, None, "a query, ", ""),
        ({"web": "a question? "}, "web", "", ""),
    ],
)
async def test_ranking_uses_the_prompt_of_each_role_and_never_the_default(
    prompted: Path, prompts: dict[str, str], default: str | None, query: str, document: str
) -> None:
    folder = prompted
    write_files(folder, {"config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": default}})
    model = ModelSettings(name=str(folder), engine="fake")

    async with running(Settings(models=(model,))) as app, calling(app) as client:
        body = {"model": "prompted", "query": "fox", "documents": ["dog"]}
        await client.post("/v2/rerank", json=body)
        await client.post("/v1/embeddings", json={"model": "prompted", "input": "dog"})
        (served,) = app.state.fleet.models()
        _, ranked, embedded = served.lane._engine.batches  # the probe first

    expected = served.encoder.encode([query + "fox", document + "dog"])
    assert sorted(row.ids for row in expected) == sorted(row.ids for row in ranked)
    assert served.encoder.encode([prompts.get(default or "", "") + "dog"]) == embedded


PROMPTS = {"query": "a query, ", "document": "a document; ", "web": "a question? ", "latest": "the latest, "}


@pytest.mark.parametrize(
    ("name", "setting", "prompt"),
    [
        ("prompted", None, "a question? "),
        ("prompted", "query", "a query, "),
        ("prompted", "document", "a document; "),
        ("prompted", "", ""),
        ("prompted:query", None, "a query, "),
        ("prompted:document", "query", "a document; "),
        ("prompted:web", "", "a question? "),
        ("text-embedding-3-small:query", None, "a query, "),
        ("with:colon", None, "a question? "),
        ("with:colon:query", None, "a query, "),
        ("prompted:latest", None, "a question? "),
        ("with:colon:latest", None, "a question? "),
        ("prompted:latest:query", None, "a query, "),
        ("text-embedding-3-small:latest", None, "a question? "),
    ],
)
async def test_a_name_or_a_setting_chooses_the_prompt(
    name: str, setting: str | None, prompt: str, prompted: Path
) -> None:
    write_files(prompted, {"config_sentence_transformers.json": {"prompts": PROMPTS, "default_prompt_name": "web"}})
    model = ModelSettings(name=str(prompted), engine="fake", prompt=setting, aliases=("with:colon",))

    async with running(Settings(models=(model,))) as app, calling(app) as client:
        answer = await client.post("/v1/embeddings", json={"model": name, "input": "dog"})
        (served,) = app.state.fleet.models()
        _, embedded = served.lane._engine.batches  # the probe first

    assert "prompted" == answer.json()["model"]
    assert served.encoder.encode([prompt + "dog"]) == embedded


@pytest.mark.parametrize("name", ["prompted:other", "other:query", "prompted:", ":query", "prompted:query:query"])
async def test_a_name_with_an_unknown_prompt_is_an_unknown_model(name: str, prompted: Path) -> None:
    async with only(prompted) as client:
        answer = await client.post("/v1/embeddings", json={"model": name, "input": "dog"})

    assert 404 == answer.status_code
    assert "model_not_found" == answer.json()["error"]["code"]


async def test_a_setting_for_an_unknown_prompt_is_refused_with_the_known_ones(prompted: Path) -> None:
    settings = Settings(models=(ModelSettings(name=str(prompted), engine="fake", prompt="web"),))
    fleet = Fleet(settings, VendorNames({}, {}), ignore)
    fleet.start()

    with pytest.raises(SettingsError, match=r"prompted has no prompt 'web'; there are: query, document$"):
        await fleet.opened()
    await fleet.close()


class TooLarge(dict[str, str]):
    """Prompts that take more memory than there is."""

    def values(self) -> NoReturn:
        """Raise MemoryError."""
        raise MemoryError


async def test_too_little_memory_is_refused_in_a_sentence(prompted: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(models=(ModelSettings(name=str(prompted), engine="fake", prompts=TooLarge(a="b")),))
    fleet = Fleet(settings, VendorNames({}, {}), ignore)
    fleet.start()

    with pytest.raises(SetupError, match="there isn't enough memory"):
        await fleet.opened()
    await fleet.close()
    assert ["can't start: there isn't enough memory; raise the limit (ulimit -v), or take a smaller model"] == [
        record.message for record in caplog.records if record.levelname == "ERROR" and not record.exc_info
    ]


async def test_prompts_of_the_settings_replace_all_others_and_info_shows_them(prompted: Path) -> None:
    """Even of a name that they leave out; the default goes with its prompt."""
    model = ModelSettings(name=str(prompted), engine="fake", prompts={"query": "numbers "})

    async with running(Settings(models=(model,))) as app, calling(app) as client:
        await client.post("/v2/rerank", json={"model": "prompted", "query": "fox", "documents": ["dog"]})
        await client.post("/v1/embeddings", json={"model": "prompted", "input": "dog"})
        (listed,) = (await client.get("/info")).json()["models"]
        (served,) = app.state.fleet.models()
        _, ranked, embedded = served.lane._engine.batches  # the probe first

    expected = served.encoder.encode(["numbers fox", "dog"])
    assert sorted(row.ids for row in expected) == sorted(row.ids for row in ranked)
    assert served.encoder.encode(["dog"]) == embedded
    assert ({"query": "numbers "}, None, "settings") == (
        listed["prompts"],
        listed["default_prompt"],
        listed["prompts_source"],
    )


async def test_prompts_for_a_reranker_are_refused(reranker: Path) -> None:
    settings = Settings(models=(ModelSettings(name=str(reranker), engine="fake", prompts={"query": "Q: "}),))
    fleet = Fleet(settings, VendorNames({}, {}), ignore)
    fleet.start()

    with pytest.raises(SettingsError, match=r"reranker takes pairs as they are; take its prompts out"):
        await fleet.opened()
    await fleet.close()


async def test_info_shows_the_source_of_prompts(several: httpx.AsyncClient, prompted: Path) -> None:
    async with only(prompted) as client:
        (listed,) = (await client.get("/info")).json()["models"]
    models = (await several.get("/info")).json()["models"]

    assert listed["prompts_source"] == "config_sentence_transformers.json"
    assert ["", "", ""] == [model["prompts_source"] for model in models]


async def test_an_instruction_is_inserted_into_the_model_s_own_prompt(prompted: Path) -> None:
    prompts = {"query": "Instruct: a question\nQuery: "}
    model = ModelSettings(name=str(prompted), engine="fake", prompts=prompts)

    async with running(Settings(models=(model,))) as app:
        job = EmbedJob(model="prompted", inputs=("dog",), role="query", instruction="the quick fox")
        await app.state.service.embed(job, ANONYMOUS)
        (served,) = app.state.fleet.models()
        _, embedded = served.lane._engine.batches  # the probe first

    assert served.encoder.encode(["Instruct: the quick fox\nQuery: dog"]) == embedded


async def test_equal_scores_keep_the_order_of_the_request(several: httpx.AsyncClient) -> None:
    body = {"model": "mini", "query": QUERY, "documents": ["same"] * 30 + [QUERY]}

    answer = await several.post("/v2/rerank", json=body)

    assert [30, *range(30)] == [result["index"] for result in answer.json()["results"]]


async def test_max_tokens_per_document_truncates_documents_and_not_the_query(several: httpx.AsyncClient) -> None:
    body = {"model": "reranker", "query": QUERY, "documents": ["jumps over the lazy dog", "jumps over"]}

    whole = await several.post("/v2/rerank", json=body)
    cut = await several.post("/v2/rerank", json={**body, "max_tokens_per_doc": 2})

    assert "0" == whole.headers["x-nearfar-truncated-tokens"]
    assert int(cut.headers["x-nearfar-truncated-tokens"]) > 0
    first, second = cut.json()["results"]
    assert first["relevance_score"] == pytest.approx(second["relevance_score"], abs=1e-6)


async def test_a_text_over_the_limit_is_an_error_with_on_overflow_error(prompted: Path) -> None:
    async with only(prompted, on_overflow="error") as client:
        embedded = await client.post("/v1/embeddings", json={"model": "prompted", "input": ["fox", "fox " * 100]})
        body = {"model": "prompted", "query": "fox", "documents": ["fox " * 100]}
        ranked = await client.post("/v2/rerank", json=body)

    assert 400 == embedded.status_code
    assert "Invalid 'input[1]': maximum input length is" in embedded.json()["error"]["message"]
    assert 200 == ranked.status_code  # rerankers always cut


async def test_a_vector_is_the_engines_own_row(prompted: Path) -> None:
    """The fake makes its vector from the ids, so they must be those of the text with its prompt and special tokens."""
    async with running(Settings(models=(ModelSettings(name=str(prompted), engine="fake"),))) as app:
        async with calling(app) as client:
            answer = await client.post("/v1/embeddings", json={"model": "prompted", "input": ["fox", "dog"]})
        (served,) = app.state.fleet.models()

    rows = served.encoder.encode(["fox", "dog"], "a document; ")
    expected = [vector_of(row.ids, 32) for row in rows]
    np.testing.assert_allclose(expected, [item["embedding"] for item in answer.json()["data"]], atol=1e-7)


async def test_a_path_finds_its_model_but_never_appears_in_an_answer(prompted: Path) -> None:
    async with only(prompted) as client:
        by_path = await client.post("/v1/embeddings", json={"model": str(prompted), "input": "fox"})
        listed = await client.get("/v1/models")

    assert "prompted" == by_path.json()["model"]
    assert str(prompted) not in listed.text


@pytest.mark.parametrize("twice", ["name", "alias"])
async def test_two_models_with_one_name_are_refused(prompted: Path, twice: str) -> None:
    other = (
        ModelSettings(name=str(prompted))
        if twice == "name"
        else ModelSettings(name=BUILTIN_MODEL, aliases=("prompted",))
    )
    settings = Settings(models=(ModelSettings(name=str(prompted)), other), engine="fake")

    with pytest.RaisesGroup(pytest.RaisesExc(SettingsError, match="two of them are called 'prompted'")):
        async with running(settings):
            pass


async def test_a_damaged_model_prevents_readiness_with_an_error_that_names_it(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "damaged", "bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.RaisesGroup(pytest.RaisesExc(CheckpointError, match=r"damaged/model.safetensors: is truncated")):
        async with running(Settings(models=(ModelSettings(name=str(folder)),), engine="torch", device="cpu")):
            pass


async def test_a_tokenizer_without_its_end_token_is_refused_before_an_engine_opens(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "mistral", "mistral")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_files(folder, {"tokenizer_config.json": config | {"add_eos_token": True}})

    with pytest.RaisesGroup(pytest.RaisesExc(CheckpointError, match=r"tokenizer_config.json: add_eos_token is set")):
        async with running(Settings(models=(ModelSettings(name=str(folder), engine="fake"),))):
            pass


ODD = OpenRequest(
    folder=Path(),
    recipe=Recipe(architecture="Odd", model_type="bert", task="embed", max_tokens=9, hidden_size=8, pooling=("cls",)),
    device="cpu",
    dtype="auto",
    probes=[Row([1], None, 1, 0)],
)


class Refusing:
    """An engine kind that can run here, but none of the checkpoints."""

    priority = 1

    def unavailable_reason(self, device: Device) -> str | None:  # noqa: ARG002
        return None

    def open(self, request: OpenRequest) -> Engine:
        raise EngineUnavailable(f"can't run {request.recipe.architecture}")


@pytest.mark.parametrize("refusing", [1, 2])
async def test_the_automatic_choice_tries_the_next_engine_and_logs_why(
    refusing: int, caplog: pytest.LogCaptureFixture
) -> None:
    opener = Opener(Settings(), ignore)
    refusals = [EngineChoice(name=f"refusing{number}", kind=Refusing(), reason="first") for number in range(refusing)]
    last = EngineChoice(name="fake", kind=FakeKind(), reason="next")

    lane, reason = await opener.open_lane("odd", [*refusals, last], ODD)
    await lane.close()

    assert "fake" == lane.engine_info.name
    assert [f"model odd: engine refusing{n} is unavailable: can't run Odd" for n in range(refusing)] == caplog.messages
    assert reason.startswith("not refusing0: can't run Odd; ")
    assert reason.endswith("next")


async def test_a_requested_engine_that_refuses_the_checkpoint_is_not_replaced() -> None:
    opener = Opener(Settings(), ignore)

    with pytest.raises(EngineUnavailable, match="can't run Odd"):
        await opener.open_lane("odd", [EngineChoice(name="refusing", kind=Refusing(), reason="requested")], ODD)
