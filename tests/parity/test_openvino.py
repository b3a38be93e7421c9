"""The OpenVINO engine computes torch's numbers, caches converted models, and reports what a precision costs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from checkpoints import FAMILIES, write_steps, write_transformer
from openvino_rows import assert_same_alone
from safetensors.torch import load_file, save_file
from texts import varied_texts

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.openvino import kind
from nearfar.engines.openvino.compiled_model import supports
from nearfar.engines.selection import installed_engines
from nearfar.engines.torch.engine import TorchEngine
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import POOLINGS
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nearfar.core.settings import Dtype
    from nearfar.engines.base import Engine

QUERY = "a question? the fox"
RERANKERS = ("bert", "xlm-roberta", "roberta", "modernbert", "distilbert", "mpnet", "qwen3")


class Opened(NamedTuple):
    tokens: TextEncoder
    engine: Engine
    torch: TorchEngine

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return self.tokens.encode(texts)

    def pairs(self, texts: Sequence[str]) -> list[Row]:
        return self.tokens.encode_pairs(QUERY, texts, None)


def order_of(folder: Path, cache: Path | None = None, dtype: Dtype = "float32") -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(
        folder=folder, recipe=recipe, device="cpu", dtype=dtype, probes=probes, cache_dir=cache, threads=2
    )


def open_both(folder: Path, cache: Path | None = None) -> Opened:
    request = order_of(folder, cache)
    return Opened(TextEncoder(folder, request.recipe), kind.open(request), TorchEngine(request))


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    opened: dict[str, Opened] = {}

    def open_family(family: str) -> Opened:
        if family not in opened:
            opened[family] = open_both(write_transformer(tmp_path_factory.mktemp(family), family))
        return opened[family]

    return open_family


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    opened: dict[str, Opened] = {}

    def open_family(family: str) -> Opened:
        if family not in opened:
            opened[family] = open_both(write_transformer(tmp_path_factory.mktemp(family), family, labels=1))
        return opened[family]

    return open_family


TEXTS = varied_texts(90)
MIXED = [*TEXTS[:20], "x", "the fox", *TEXTS[25:60]]


class TestNumbers:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_vectors_are_torch_s_whatever_the_lengths_in_the_batch(
        self, family: str, embedders: Callable[[str], Opened]
    ) -> None:
        opened = embedders(family)
        rows = [row for row in opened.rows(MIXED) if row.ids]

        for size in (1, 2, 5, 13, len(rows)):
            batch = rows[:size]
            np.testing.assert_allclose(opened.engine.embed(batch), opened.torch.embed(batch), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_neighbours_in_the_batch_change_nothing(self, family: str, embedders: Callable[[str], Opened]) -> None:
        opened = embedders(family)
        rows = [row for row in opened.rows(MIXED) if row.ids]

        together = opened.engine.embed(rows)

        alone = np.concatenate([opened.engine.embed([row]) for row in rows])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
        assert together.std(axis=0).max() > 0.05  # these tiny models do distinguish texts

    @pytest.mark.parametrize("family", RERANKERS)
    def test_logits_are_torch_s(self, family: str, rerankers: Callable[[str], Opened]) -> None:
        opened = rerankers(family)
        rows = opened.pairs(MIXED)

        logits = opened.engine.score(rows)

        np.testing.assert_allclose(logits, opened.torch.score(rows), rtol=0, atol=1e-4)
        assert logits.std() > 0.01

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_row_alone_gets_the_same_vector(self, family: str, embedders: Callable[[str], Opened]) -> None:
        opened = embedders(family)

        assert_same_alone(opened.engine, [row for row in opened.rows(MIXED) if row.ids])

    @pytest.mark.parametrize("family", RERANKERS)
    def test_a_pair_alone_gets_the_same_logit(self, family: str, rerankers: Callable[[str], Opened]) -> None:
        opened = rerankers(family)

        assert_same_alone(
            opened.engine, [*opened.tokens.encode_pairs("a", ["fox", "x"], None), *opened.pairs(MIXED)], atol=1e-5
        )

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_each_pooling_with_a_dense_layer(self, pooling: str, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / pooling, "bert")
        write_steps(folder, pooling)
        opened = open_both(folder)
        rows = opened.rows(MIXED)

        vectors = opened.engine.embed(rows)

        assert (len(rows), 12) == vectors.shape
        np.testing.assert_allclose(vectors, opened.torch.embed(rows), rtol=0, atol=1e-5)

    def test_a_window_narrower_than_the_padding_gives_no_nan(self, embedders: Callable[[str], Opened]) -> None:
        """Under a sliding window a place in the padding may see nothing at all."""
        opened = embedders("modernbert")
        rows = [Row([5, 6], None, 2, 0), Row(list(range(4, 48)), None, 44, 0)]

        vectors = opened.engine.embed(rows)

        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(vectors, opened.torch.embed(rows), rtol=0, atol=1e-5)

    def test_several_threads_at_once_each_get_their_own(self, embedders: Callable[[str], Opened]) -> None:
        opened = embedders("bert")
        batches = [opened.rows(TEXTS[at : at + 7]) for at in range(0, 70, 7)]
        expected = [opened.engine.embed(batch) for batch in batches]

        with ThreadPoolExecutor(opened.engine.info.max_concurrent_batches) as threads:
            found = list(threads.map(opened.engine.embed, batches * 5))

        for at, vectors in enumerate(found):
            np.testing.assert_allclose(vectors, expected[at % len(batches)], rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("bert"), "bert")


# Opens the built-in model with the folder for caches that it is given, and prints which libraries it took and whether
# anything was sought on the network.
START = """
import sys
from pathlib import Path

sought = []
sys.addaudithook(lambda event, _: sought.append(event) if event in {"socket.connect", "socket.getaddrinfo"} else None)

from nearfar.engines.base import OpenRequest
from nearfar.engines.openvino import kind
from nearfar.engines.openvino.compiled_model import supports
from nearfar.engines.common.precision import measure_loss
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

found = find_builtin()
recipe = read_recipe(found.folder)
probes = TextEncoder(found.folder, recipe).sample_rows()
request = OpenRequest(
    folder=found.folder, recipe=recipe, device="cpu", dtype="float32", probes=probes, cache_dir=Path(sys.argv[1])
)
kind.open(request)
print(sorted({"torch", "transformers"} & sys.modules.keys()), sought)
"""


def start(cache: Path) -> str:
    """Open the built-in model in a new process; return what it prints."""
    command = [sys.executable, "-c", START, str(cache)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "openvino").iterdir())


class TestCache:
    def test_what_was_converted_is_kept_and_gives_the_same_numbers(self, bert: Path, tmp_path: Path) -> None:
        first = open_both(bert, tmp_path)
        rows = first.rows(MIXED)

        second = kind.open(order_of(bert, tmp_path))

        assert 1 == len(entries(tmp_path))
        np.testing.assert_array_equal(first.engine.embed(rows), second.embed(rows))

    def test_a_second_start_needs_no_torch_and_neither_start_the_network(self, tmp_path: Path) -> None:
        """OpenVINO's own converter and quantiser would report themselves to their makers."""
        assert ["['torch', 'transformers'] []", "[] []"] == [start(tmp_path), start(tmp_path)]

    def test_a_damaged_entry_is_converted_again(
        self, bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        kind.open(order_of(bert, tmp_path / "whole"))
        rows = TextEncoder(bert, read_recipe(bert)).encode(MIXED)
        expected = kind.open(order_of(bert)).embed(rows)
        wrong = []

        for file in ("model.xml", "model.bin", "exact.npy"):
            for damage in ("cut short", "scrambled", "missing"):
                cache = tmp_path / f"{file} {damage}"
                shutil.copytree(tmp_path / "whole", cache)
                damaged = entries(cache)[0] / file
                content = damaged.read_bytes()
                half = content[: len(content) // 2]
                damaged.unlink()
                if damage != "missing":
                    damaged.write_bytes(half if damage == "cut short" else half + half[::-1])
                caplog.clear()
                with caplog.at_level("INFO"):
                    vectors = kind.open(order_of(bert, cache)).embed(rows)
                size = (entries(cache)[0] / file).stat().st_size
                same = np.allclose(vectors, expected, rtol=0, atol=1e-6) and abs(size - len(content)) <= 20
                wrong += [] if same and "converting" in caplog.text else [f"{file}, {damage}"]

        assert not wrong

    def test_other_weights_of_the_same_folder_are_converted_anew(self, bert: Path, tmp_path: Path) -> None:
        folder = tmp_path / "bert"
        shutil.copytree(bert, folder)
        before = open_both(folder, tmp_path / "cache")
        rows = before.rows(MIXED)
        weights = load_file(folder / "model.safetensors")
        weights["embeddings.word_embeddings.weight"] *= -1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

        after = open_both(folder, tmp_path / "cache")

        np.testing.assert_allclose(after.engine.embed(rows), after.torch.embed(rows), rtol=0, atol=1e-5)
        assert np.abs(after.engine.embed(rows) - before.engine.embed(rows)).max() > 0.1
        assert 1 == len(entries(tmp_path / "cache"))

    def test_a_cache_that_can_not_be_written_is_done_without(
        self, bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "openvino").write_text("not a folder")

        opened = open_both(bert, tmp_path)

        rows = opened.rows(MIXED)
        np.testing.assert_allclose(opened.engine.embed(rows), opened.torch.embed(rows), rtol=0, atol=1e-5)
        assert "it will be converted at every start" in caplog.text


class TestPrecision:
    def test_the_automatic_choice_says_why(self, bert: Path) -> None:
        info = kind.open(order_of(bert, dtype="auto")).info

        native = supports("bfloat16")
        assert native or ("float32", "auto: this CPU doesn't support bfloat16") == (
            info.dtype,
            info.dtype_reason,
        )
        assert not native or "cosine to float32" in info.dtype_reason

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_a_precision_this_cpu_lacks_is_refused(self, dtype: Dtype, bert: Path) -> None:
        if supports(dtype):
            assert kind.open(order_of(bert, dtype=dtype)).info.dtype == dtype
            return

        with pytest.raises(EngineUnavailable, match=f"this CPU doesn't support {dtype}; use --dtype float32"):
            kind.open(order_of(bert, dtype=dtype))

    def test_int8_says_what_it_costs(self) -> None:
        folder = find_builtin().folder
        engine = kind.open(order_of(folder, dtype="int8"))
        rows = TextEncoder(folder, read_recipe(folder)).encode([text[:200] for text in TEXTS[:30]])
        exact = kind.open(order_of(folder)).embed(rows)

        loss = measure_loss(exact, engine.embed(rows))

        assert "int8" == engine.info.dtype
        assert re.fullmatch(
            r"requested; cosine to float32 min 0\.99\d+, mean 0\.99\d+, 9\d\.\d+% of neighbors in the order of "
            r"float32, on 39 probes; alone and in a batch the cosine is at least [01]\.\d+",
            engine.info.dtype_reason,
        )
        assert 0.98 < loss.worst < 0.99999
        assert loss.mean > 0.995


class TestChoice:
    def test_it_is_registered_and_takes_no_other_device(self) -> None:
        assert installed_engines()["openvino"] is kind
        assert kind.unavailable_reason("cpu") is None
        assert "it has no mps, only cpu" == kind.unavailable_reason("mps")

    def test_a_checkpoint_that_torch_can_not_load_is_no_engine_s_fault(self, bert: Path, tmp_path: Path) -> None:
        shutil.copytree(bert, tmp_path / "bert")
        (tmp_path / "bert/model.safetensors").write_bytes(b"not weights")

        with pytest.raises(CheckpointError, match="can't be loaded"):
            kind.open(order_of(tmp_path / "bert"))


def test_the_first_forwards_of_a_process_may_run_at_once() -> None:
    """OpenVINO's table of types must exist before: two threads that built it blocked the whole process for ever."""
    code = """
import sys, threading
import nearfar.engines.openvino.compiled_model
import numpy as np, openvino
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(4)
def convert():
    barrier.wait()
    openvino.Type.i64.to_dtype()
    openvino.Tensor(np.zeros(1, np.int64))
threads = [threading.Thread(target=convert) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
