"""A row that runs alone on OpenVINO uses all threads, in models of its own, and gets the same numbers."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import pytest
from checkpoints import write_transformer
from openvino import opset13 as ops
from openvino_rows import assert_same_alone, compile_for_single_rows, numbers_alone
from small_models import write_colbert, write_m3, write_splade
from texts import varied_texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.openvino.compiled_model import (
    _ROWS_BEFORE,
    ANY_LENGTH,
    ROW_STEP,
    CompiledModel,
    SingleRowModels,
    is_small,
    supports,
)
from nearfar.engines.openvino.engine import OpenVinoEngine
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nearfar.core.settings import Dtype
    from nearfar.models.tokenization.row import Row

TEXTS = [text for text in varied_texts(90) if text.split()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def open_engine(
    folder: Path, dtype: Dtype = "float32", threads: int = 2, cache: Path | None = None, **options: Any
) -> tuple[OpenVinoEngine, TextEncoder]:
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    probes = tokens.sample_rows()
    request = OpenRequest(
        folder=folder,
        recipe=recipe,
        device="cpu",
        dtype=dtype,
        probes=probes,
        cache_dir=cache,
        threads=threads,
        **options,
    )
    return OpenVinoEngine(request), tokens


MODELS: dict[str, Callable[[Path], object]] = {
    "token vectors": lambda folder: write_colbert(folder, "bert"),
    "three outputs": write_m3,
    "sparse": lambda folder: write_splade(folder, "bert"),
}


@pytest.mark.parametrize("outputs", MODELS)
def test_other_outputs_than_one_vector_are_the_same(outputs: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    MODELS[outputs](folder)
    engine, tokens = open_engine(folder)

    assert_same_alone(engine, [row for row in tokens.encode(TEXTS) if row.ids], atol=1e-5)


@pytest.mark.skipif(not supports("bfloat16"), reason="this CPU doesn't support bfloat16")
def test_bfloat16_vectors_are_nearly_the_same(cache: Path) -> None:
    engine, tokens = open_engine(find_builtin().folder, "bfloat16", cache=cache)

    usual, alone = zip(*numbers_alone(engine, tokens.encode(TEXTS)), strict=True)

    assert measure_loss(np.concatenate(usual), np.concatenate(alone)).is_small


@pytest.fixture(scope="module")
def builtin(cache: Path) -> Iterator[tuple[OpenVinoEngine, list[Row], dict[int, CompiledModel]]]:
    engine, tokens = open_engine(find_builtin().folder, cache=cache)
    rows = tokens.encode(TEXTS)
    yield engine, rows, compile_for_single_rows(engine, rows)
    engine.close()


class Drained:
    """Takes all infer requests from models meanwhile, so that whatever runs on them has to wait."""

    def __init__(self, *models: CompiledModel) -> None:
        self._models = models

    def __enter__(self) -> None:
        self._taken = [(model, model._idle.get()) for model in self._models for _ in range(model.streams)]

    def __exit__(self, *_: object) -> None:
        for model, request in self._taken:
            model._idle.put(request)


class Nested(list["Row"]):
    """A batch during which another call is made."""

    meanwhile: Callable[[], object]

    def __iter__(self) -> Iterator[Row]:
        self.meanwhile()
        return super().__iter__()


def test_a_row_alone_runs_on_all_threads_and_anything_else_on_streams(
    builtin: tuple[OpenVinoEngine, list[Row], dict[int, CompiledModel]],
) -> None:
    engine, rows, single = builtin
    short = next(row for row in rows if len(row.ids) <= ROW_STEP)
    long = next(row for row in rows if len(row.ids) > ROW_STEP)
    beside = Nested([short, long])
    beside.meanwhile = lambda: engine.embed([short])

    with ThreadPoolExecutor(1) as thread:
        for row in (short, long):
            with Drained(engine._model):
                assert (1, 384) == thread.submit(engine.embed, [row]).result(30).shape
        for batch in ([short, short], beside):
            with Drained(*single.values()):
                assert (2, 384) == thread.submit(engine.embed, batch).result(30).shape


def test_a_setting_turns_the_models_off(cache: Path) -> None:
    engine, _ = open_engine(find_builtin().folder, cache=cache, single_row_models=False)

    assert engine._single_row is None
    engine.close()


def test_models_are_compiled_while_other_threads_infer(cache: Path) -> None:
    """A request that was created while another thread inferred once made both hang."""
    engine, tokens = open_engine(find_builtin().folder, cache=cache)
    rows = tokens.encode(TEXTS)
    batches = [rows[at : at + 3] for at in range(0, 60, 3)]
    expected = [engine.embed(batch) for batch in batches]

    single = engine._single_row
    assert single
    for length in (ROW_STEP, ANY_LENGTH):
        with ThreadPoolExecutor(3) as threads:
            compiling = threads.submit(single._compile, length)
            found = list(threads.map(engine.embed, batches * 4, timeout=60))
            compiling.result(60)

        for at, vectors in enumerate(found):
            np.testing.assert_allclose(vectors, expected[at % len(batches)], rtol=0, atol=1e-6)
    assert {ROW_STEP, ANY_LENGTH} == single._compiled.keys()


def test_closing_waits_for_a_model_that_is_being_compiled(cache: Path) -> None:
    engine, tokens = open_engine(find_builtin().folder, cache=cache)
    (row,) = tokens.encode(["the fox"])
    single = engine._single_row
    assert single

    for _ in range(_ROWS_BEFORE):
        engine.embed([row])
    engine.close()

    assert {ROW_STEP} == single._compiled.keys()


@pytest.mark.parametrize(("threads", "dtype"), [(1, "float32"), (2, "int8")])
def test_none_are_compiled_on_one_thread_or_where_memory_is_saved(threads: int, dtype: Dtype, tmp_path: Path) -> None:
    engine, _ = open_engine(write_transformer(tmp_path / "bert", "bert"), dtype, threads)

    assert engine._single_row is None


@pytest.mark.parametrize(("mib", "small"), [(127, True), (129, False)])
def test_only_small_models_are_compiled_again(mib: int, small: bool) -> None:
    weights = ops.constant(np.zeros((1024, mib * 256), np.float32), shared_memory=True)
    table = ops.constant(np.zeros((2**16, 1024), np.float32), shared_memory=True)  # isn't copied, so doesn't count
    ids = ops.parameter([1, -1], np.int64)
    model = openvino.Model(
        [ops.matmul(ops.gather(table, ids, ops.constant(0)), weights, transpose_a=False, transpose_b=False)], [ids]
    )

    assert small == is_small(model)


class Now(Executor):
    """Calls on the caller's thread."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        call(*args, **named)
        return Future()


def test_each_model_is_compiled_once_and_only_when_its_rows_are_common() -> None:
    lengths: list[int] = []

    def compile_model(length: int) -> Any:
        lengths.append(length)
        return length

    single = SingleRowModels(compile_model, Now())

    found = [[single.find(tokens) for _ in range(_ROWS_BEFORE * 2)] for tokens in (1, 16, 17, 512, 513)]

    assert [ROW_STEP, ANY_LENGTH] == lengths
    assert [True, False, True, False, True] == [rows[0] is None for rows in found]
    assert [False, False, False, False, True] == [rows[-1] is None for rows in found]
    assert [None] * (_ROWS_BEFORE - 1) == found[0][: _ROWS_BEFORE - 1]


def test_a_model_that_can_not_be_compiled_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    models: dict[int, CompiledModel] = {}
    single = SingleRowModels(models.__getitem__, Now())

    assert {None} == {single.find(5) for _ in range(_ROWS_BEFORE * 2)}
    assert 1 == caplog.text.count("no model was compiled for single rows")
