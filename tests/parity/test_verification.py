"""A model's numbers are compared with sentence-transformers' at its first load, and refused with what to suspect."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import forked_subprocess
import msgspec
import numpy as np
import pytest
from checkpoints import HIDDEN, write_files, write_steps, write_transformer
from llm_reranker_models import CHATS, write_chat_reranker, write_converted_classifier, write_llm_reranker
from sentence_transformers import CrossEncoder, SentenceTransformer
from small_models import write_colbert, write_splade

from nearfar import ModelSettings, Settings, create_app
from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.torch import kind
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization import sample_texts
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.verification import reference, reference_process
from nearfar.serving.verification.comparison import Served, compare
from nearfar.serving.verification.fingerprint import VerifiedFolders
from nearfar.serving.verification.reference import Answer, Task, Texts
from nearfar.serving.verification.verifier import Verifier, VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nearfar.models.recipe.recipe import Recipe

TEXTS: tuple[Texts, ...] = tuple((text,) for text in (*sample_texts.TEXTS, sample_texts.LONG))
PAIRS: tuple[Texts, ...] = tuple(sample_texts.pairs())


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_transformer(tmp_path_factory.mktemp("models") / "embedder", "bert")
    write_steps(folder, "mean")
    return folder


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("models") / "reranker", "xlm-roberta", labels=1)


def served(folder: Path, **recipe: Any) -> Served:
    return served_as(folder, msgspec.structs.replace(read_recipe(folder), **recipe))


def served_as(folder: Path, found: Recipe) -> Served:
    engine = kind.open(OpenRequest(folder=folder, recipe=found, device="cpu", dtype="float32", threads=1))
    return Served(TextEncoder(folder, found), found, engine)


@cache
def answer_of(folder: Path, items: tuple[Texts, ...]) -> Answer:
    """Return what sentence-transformers computes, in this process."""
    if len(items[0]) == 1:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        numbers = [model.encode([text], prompt="", show_progress_bar=False)[0].tolist() for (text,) in items]
        ids = [model.preprocess([text])["input_ids"][0].tolist() for (text,) in items]
        return Answer(library="st", numbers=numbers, ids=ids)
    reranker = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    from torch.nn import Identity

    scores = reranker.predict([*items], batch_size=1, activation_fn=Identity(), show_progress_bar=False)
    return Answer(library="st", numbers=[[float(score)] for score in scores], ids=[None] * len(items))


@pytest.mark.parametrize("which", ["embedder", "reranker"])
def test_a_model_with_the_library_s_numbers_passes(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    items = TEXTS if which == "embedder" else PAIRS

    compare(served(folder), items, answer_of(folder, items), "")


def test_another_pooling_is_refused_with_the_text_and_the_file_to_suspect(embedder: Path) -> None:
    answer = answer_of(embedder, TEXTS)

    with pytest.raises(EngineUnavailable, match=r"differ by .*tokens are the same: suspect modules.json and 1_Pooling"):
        compare(served(embedder, pooling=("cls",)), TEXTS, answer, "")


def test_other_tokens_are_refused_as_the_tokenizer_s(embedder: Path) -> None:
    answer = answer_of(embedder, TEXTS)

    with pytest.raises(CheckpointError, match=r"its tokens are other ones, \d+ tokens .*suspect tokenizer_config.json"):
        compare(served(embedder, max_tokens=16), TEXTS, answer, "")


def test_numbers_that_neighbors_in_a_batch_change_are_refused(embedder: Path) -> None:
    answer, whole = answer_of(embedder, TEXTS), served(embedder)

    class Leaking:
        info = whole.engine.info

        def embed(self, rows: Any) -> Any:
            vectors = whole.engine.embed(rows)
            return vectors if len(rows) == 1 else vectors + 0.1 * vectors.mean(0)

    leaking: Any = Leaking()
    with pytest.raises(EngineUnavailable, match="texts in its batch change the numbers of '"):
        compare(whole._replace(engine=leaking), TEXTS, answer, "")


def test_an_engine_that_fails_is_refused_with_the_length_of_the_text(embedder: Path) -> None:
    answer, whole = answer_of(embedder, TEXTS), served(embedder)

    class Failing:
        info = whole.engine.info

        def embed(self, rows: Any) -> Any:
            if len(rows[0].ids) > 16:
                raise IndexError("index 64 is out of bounds")
            return whole.engine.embed(rows)

    failing: Any = Failing()
    with pytest.raises(
        EngineUnavailable, match=r"torch engine fails on a text of \d+ tokens \(index 64 is out of bounds"
    ):
        compare(whole._replace(engine=failing), TEXTS, answer, "")


def test_a_prompt_that_pooling_leaves_out_is_compared(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "bert")
    write_steps(folder, "mean")
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode": "mean", "include_prompt": False}
    prompts = {"prompts": {"query": "find: ", "document": ""}}
    write_files(folder, {"1_Pooling/config.json": pooling, "config_sentence_transformers.json": prompts})
    task = msgspec.structs.replace(task_of(folder, TEXTS), prompt="find: ")
    (tmp_path / "task").write_bytes(msgspec.json.encode(task, enc_hook=str))

    for has_library in (True, False):
        reference.main(tmp_path / "task", tmp_path / "answer", has_library=has_library)
        answer = msgspec.json.decode((tmp_path / "answer").read_bytes(), type=Answer)

        compare(served(folder)._replace(prompt="find: "), TEXTS, answer, "")
        with pytest.raises(EngineUnavailable, match="differ by"):
            compare(served(folder, pools_prompt=True)._replace(prompt="find: "), TEXTS, answer, "")


def test_a_text_without_a_token_behind_the_prompt_is_compared_as_the_zeros_that_are_served(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "llama", head_dim=8)
    write_steps(folder, "mean")
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode": "mean", "include_prompt": False}
    modules = json.loads((folder / "modules.json").read_text())
    prompts = {"prompts": {"query": "find: "}}
    write_files(
        folder,
        {
            "modules.json": [modules[0], modules[1]],
            "1_Pooling/config.json": pooling,
            "config_sentence_transformers.json": prompts,
        },
    )
    items: tuple[Texts, ...] = (("a",), ("plants",), ("a",))
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    numbers = [model.encode([text], prompt="find: ", show_progress_bar=False)[0].tolist() for (text,) in items]
    ours = served(folder)._replace(prompt="find: ")

    assert [len(row.ids) > 0 for [row] in ours.encode(items)] == [False, True, False]
    compare(ours, items, Answer(library="st", numbers=numbers, ids=[None] * 3), "")
    wrong = [[1.0] * HIDDEN, *numbers[1:]]
    with pytest.raises(EngineUnavailable, match="differ by"):
        compare(ours, items, Answer(library="st", numbers=wrong, ids=[None] * 3), "")


def test_a_text_that_the_library_can_not_compute_is_left_out(embedder: Path) -> None:
    answer = answer_of(embedder, TEXTS)
    shorter = msgspec.structs.replace(answer, numbers=[*answer.numbers[:-1], None])

    compare(served(embedder), TEXTS, shorter, "")


@pytest.fixture
def _forked_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_process, "subprocess", forked_subprocess)


def verified(folder: Path, engine: str = "torch") -> str:
    """Open a model in the server with the check at load, and return the check's result."""
    recipe, encoder = read_recipe(folder), TextEncoder(folder, read_recipe(folder))
    request = VerifyRequest(
        name="model",
        folder=folder,
        recipe=recipe,
        parameters=10**5,
        enabled=True,
        max_tokens=None,
        is_builtin=False,
        first_engine=engine,
        cache_dir=folder.parent / "cache",
    )
    verifier = Verifier(request, encoder)
    verifier.check(served(folder).engine)
    return verifier.result


@pytest.mark.usefixtures("_forked_references")
@pytest.mark.parametrize("family", ["qwen3-reranker", "mxbai-rerank-v2", "bge-reranker-v2-gemma"])
def test_an_llm_reranker_is_compared_with_the_language_model_and_the_classifier_made_of_it(
    family: str, tmp_path: Path
) -> None:
    folder = write_llm_reranker(tmp_path, family)
    made = write_converted_classifier(folder, family)

    for each in (folder, made):
        assert re.fullmatch(r"verified against transformers [\d.]+ on \d\d samples", verified(each))


@pytest.mark.usefixtures("_forked_references")
def test_an_llm_reranker_of_sentence_transformers_is_compared_with_its_cross_encoder(tmp_path: Path) -> None:
    folder = write_chat_reranker(tmp_path, CHATS["with an instruction"])

    assert re.fullmatch(r"verified against sentence-transformers [\d.]+ on \d\d samples", verified(folder))


def test_an_llm_reranker_with_other_answers_or_another_prompt_is_refused(tmp_path: Path) -> None:
    folder = write_llm_reranker(tmp_path, "qwen3-reranker")
    recipe = read_recipe(folder)
    assert recipe.llm_reranker
    assert recipe.llm_reranker.answer_tokens
    yes, no = recipe.llm_reranker.answer_tokens.yes, recipe.llm_reranker.answer_tokens.no
    task = msgspec.structs.replace(
        task_of(folder, PAIRS[:12]), segments=recipe.llm_reranker.prompt.segments, answers=(no or 0, yes)
    )
    (tmp_path / "task").write_bytes(msgspec.json.encode(task, enc_hook=str))
    reference.main(tmp_path / "task", tmp_path / "answer", has_library=True)
    answer = msgspec.json.decode((tmp_path / "answer").read_bytes(), type=Answer)

    with pytest.raises(EngineUnavailable, match="differ by"):
        compare(served(folder), PAIRS[:12], answer, "")
    other = [[*ids[:-1], 0] if ids else None for ids in answer.ids]
    with pytest.raises(CheckpointError, match="its tokens are other ones"):
        compare(served(folder), PAIRS[:12], msgspec.structs.replace(answer, ids=other), "")


def task_of(folder: Path, items: tuple[Texts, ...]) -> Task:
    recipe = read_recipe(folder)
    return Task(
        folder=str(folder),
        items=[*items],
        scores=recipe.task == "score",
        output=next(iter(recipe.outputs), "dense"),
        prompt=next(filter(None, recipe.prompts.values())) if recipe.leaves_out_prompt else "",
        threads=1,
        max_tokens=None,
        limit=recipe.max_tokens,
        lower_case=False,
        pooling=recipe.pooling,
        layers=recipe.layers,
        normalize=recipe.normalize,
        truncate_dim=recipe.truncate_dim,
        subfolder=recipe.subfolder,
    )


def changed_multi_vector(recipe: Recipe) -> Recipe:
    assert recipe.multi_vector
    return msgspec.structs.replace(
        recipe, multi_vector=msgspec.structs.replace(recipe.multi_vector, skip_ids=frozenset())
    )


def changed_sparse(recipe: Recipe) -> Recipe:
    assert recipe.sparse
    return msgspec.structs.replace(recipe, sparse=msgspec.structs.replace(recipe.sparse, pooling="sum"))


@pytest.mark.parametrize(
    ("write", "items", "change"),
    [(write_colbert, PAIRS, changed_multi_vector), (write_splade, TEXTS, changed_sparse)],
    ids=["multi_vector", "sparse"],
)
def test_vectors_of_tokens_and_weights_of_words_are_compared_too(
    write: Any, items: tuple[Texts, ...], change: Callable[[Recipe], Recipe], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    write(folder, "bert")
    answer = run_reference(task_of(folder, items), tmp_path)
    right = served(folder)

    assert None not in answer.numbers
    compare(right, items, answer, "")
    with pytest.raises(EngineUnavailable, match="differ by"):
        compare(served_as(folder, change(right.recipe)), items, answer, "")


@pytest.mark.parametrize("which", ["embedder", "reranker"])
def test_without_sentence_transformers_the_numbers_are_those_of_transformers(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, items = request.getfixturevalue(which), TEXTS if which == "embedder" else PAIRS
    (tmp_path / "task").write_bytes(msgspec.json.encode(task_of(folder, items), enc_hook=str))

    reference.main(tmp_path / "task", tmp_path / "answer", has_library=False)

    answer = msgspec.json.decode((tmp_path / "answer").read_bytes(), type=Answer)
    assert answer.library.startswith("transformers 5")
    compare(served(folder), items, answer, "")


FAKE_LIBRARY = """
import scipy.constants

class SentenceTransformer:
    def __init__(self, *args, **options): self.number = scipy.constants.pi * 1.0
    def float(self): return self
    def encode(self, texts, **options): return [[self.number]]
    def modules(self): return []
CrossEncoder = None
"""


def run_reference(task: Task, place: Path, **environment: str) -> Answer:
    """Return what the process computes."""
    (place / "task").write_bytes(msgspec.json.encode(task, enc_hook=str))
    subprocess.run(
        [sys.executable, "-m", "nearfar.serving.verification.reference", str(place / "task"), str(place / "answer")],
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    return msgspec.json.decode((place / "answer").read_bytes(), type=Answer)


def test_the_numbers_do_not_depend_on_libraries_for_training(embedder: Path, tmp_path: Path) -> None:
    found = run_reference(task_of(embedder, TEXTS), tmp_path)

    assert found.library.startswith("sentence-transformers")
    assert answer_of(embedder, TEXTS).ids == found.ids
    assert np.allclose(np.array(answer_of(embedder, TEXTS).numbers), np.array(found.numbers), rtol=0, atol=1e-6)


def test_a_library_that_needs_one_of_them_gets_it(embedder: Path, tmp_path: Path) -> None:
    (tmp_path / "sentence_transformers.py").write_text(FAKE_LIBRARY)

    found = run_reference(task_of(embedder, (("a",),)), tmp_path, PYTHONPATH=str(tmp_path))

    assert [[math.pi]] == found.numbers


@pytest.mark.anyio
async def test_the_first_load_verifies_and_the_second_one_remembers(embedder: Path, tmp_path: Path) -> None:
    settings = Settings(
        models=(ModelSettings(name=str(embedder)),),
        engine="torch",
        device="cpu",
        dtype="float32",
        threads=1,
        cache_dir=str(tmp_path),
    )
    results = []
    for _ in range(2):
        app = create_app(settings)
        async with app.lifespan():
            await app.state.fleet.opened()
            results.append(app.state.fleet.infos()[0].verified)

    assert results[0].startswith("verified against sentence-transformers")
    assert results[0] == results[1]
    [file] = (tmp_path / "verified").glob("*.json")
    assert {"torch float32": results[0]} == json.loads(file.read_text())


@pytest.mark.anyio
async def test_a_model_may_be_served_unverified(embedder: Path) -> None:
    models = (ModelSettings(name=str(embedder), verify=False),)
    app = create_app(Settings(models=models, engine="torch", device="cpu", dtype="float32"))
    async with app.lifespan():
        await app.state.fleet.opened()

        assert "not verified: switched off (verify = false)" == app.state.fleet.infos()[0].verified


def test_what_was_verified_counts_until_a_file_or_the_recipe_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_files(tmp_path / "model", {"config.json": {"a": 1}, "model.safetensors": bytes(1000)})
    VerifiedFolders(tmp_path, folder, "recipe").add("torch float32", "verified")

    assert {"torch float32": "verified"} == VerifiedFolders(tmp_path, folder, "recipe").read()
    assert {} == VerifiedFolders(tmp_path, folder, "another recipe").read()
    (folder / "model.safetensors").write_bytes(bytes(999) + b"x")
    assert {} == VerifiedFolders(tmp_path, folder, "recipe").read()
    (tmp_path / "file").write_text("not a folder")
    VerifiedFolders(tmp_path / "file", folder, "recipe").add("torch float32", "verified")
    assert "it will be verified at every start" in caplog.text


def test_the_built_in_model_has_the_numbers_of_sentence_transformers() -> None:
    folder = find_builtin().folder
    answer = answer_of(folder, TEXTS)

    compare(served(folder), TEXTS, answer, "")

    assert all(np.isfinite(numbers).all() for numbers in answer.numbers if numbers)
