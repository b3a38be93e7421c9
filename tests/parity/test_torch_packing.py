"""Packed rows have the numbers of padded rows, in every family that can be packed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, POSITIONS, write_files, write_transformer

from nearfar.engines.base import OpenRequest
from nearfar.engines.torch import linears
from nearfar.engines.torch.attention import MaskPattern, Run
from nearfar.engines.torch.engine import TorchEngine
from nearfar.engines.torch.loading import check_rows, returns_same
from nearfar.engines.torch.packing import PackedModel
from nearfar.engines.torch.packing import pack as pack_rows
from nearfar.engines.torch.padded import PaddedModel
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import POOLINGS
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

UNPACKED = {"mpnet"}  # its attention adds a bias of its own, and doesn't go through transformers' registry
PACKED = [family for family in FAMILIES if family not in UNPACKED]
LENGTHS = {
    "a single row": [7],
    "a row of one token": [1],
    "all of one length": [9, 9, 9, 9],
    "many lengths, in no order": [5, POSITIONS, 1, 9, 30, 9, 2, 5, 17, POSITIONS],
    "all but one of one length": [12, 12, 3, 12],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folders: dict[tuple[str, int | None], Path] = {}

    def write(family: str, labels: int | None = None) -> Path:
        if (family, labels) not in folders:
            place = tmp_path_factory.mktemp(f"{family}-{labels}")
            folders[family, labels] = write_transformer(place, family, labels=labels)
        return folders[family, labels]

    return write


def order_for(folder: Path) -> OpenRequest:
    return OpenRequest(folder=folder, recipe=read_recipe(folder), device="cpu", dtype="float32")


def make_rows(lengths: Sequence[int], *, typed: bool = False) -> list[Row]:
    """Make rows of seeded ids, the special ones among them; pairs where they are ``typed``."""
    numbers = np.random.default_rng(7)
    ids = [numbers.integers(40, size=length).tolist() for length in lengths]
    return [Row(row, [int(at > len(row) // 2) for at in range(len(row))] if typed else None, 0, 0) for row in ids]


def both_ways(request: OpenRequest, rows: Sequence[Row], multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the rows padded, then packed."""
    model = load_transformer(request, torch.float32)
    with torch.inference_mode():
        padded = PaddedModel(model, request.recipe, "cpu")(rows)
        return padded, PackedModel(model, request.recipe, multiple)(rows)


class TestPackedIsPadded:
    @pytest.mark.parametrize("family", PACKED)
    @pytest.mark.parametrize("lengths", LENGTHS)
    def test_vectors(self, lengths: str, family: str, folder: Callable[..., Path]) -> None:
        """The windows of ModernBERT and Mistral are 8 tokens here, so most rows reach past them."""
        padded, packed = both_ways(order_for(folder(family)), make_rows(LENGTHS[lengths]))

        torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", PACKED)
    @pytest.mark.parametrize("lengths", LENGTHS)
    def test_logits(self, lengths: str, family: str, folder: Callable[..., Path]) -> None:
        padded, packed = both_ways(order_for(folder(family, 1)), make_rows(LENGTHS[lengths]))

        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("labels", [None, 1])
    def test_pairs_with_token_types(self, labels: int | None, folder: Callable[..., Path]) -> None:
        rows = make_rows([5, 9, 9, 30], typed=True)
        mixed = [*rows, *make_rows([9, 4])]

        padded, packed = both_ways(order_for(folder("bert", labels)), mixed)

        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("mode", POOLINGS)
    def test_every_pooling(self, mode: str, tmp_path: Path) -> None:
        write_transformer(tmp_path, "bert")
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
        pooling = {"word_embedding_dimension": 32, "pooling_mode": mode}
        write_files(tmp_path, {"modules.json": modules, "1_Pooling/config.json": pooling})
        request = order_for(tmp_path)

        padded, packed = both_ways(request, make_rows([3, 9, 9, 20]))

        assert (mode,) == request.recipe.pooling
        torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("labels", [None, 1])
    def test_tokens_that_fill_a_batch_up_change_nothing(self, labels: int | None, folder: Callable[..., Path]) -> None:
        padded, packed = both_ways(order_for(folder("roberta", labels)), make_rows([5, 9, 9, 2]), multiple=32)

        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)

    def test_a_model_taken_over_and_given_back_pads_as_before(self, folder: Callable[..., Path]) -> None:
        request = order_for(folder("bert", 1))
        model = load_transformer(request, torch.float32)
        rows = make_rows([5, 9, 3])
        with torch.inference_mode():
            before = PaddedModel(model, request.recipe, "cpu")(rows)

            PackedModel(model, request.recipe).undo()

            torch.testing.assert_close(PaddedModel(model, request.recipe, "cpu")(rows), before, rtol=0, atol=0)


class TestWhichArePacked:
    @pytest.mark.parametrize("labels", [None, 1])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family_with_known_attention(
        self, family: str, labels: int | None, folder: Callable[..., Path]
    ) -> None:
        info = TorchEngine(order_for(folder(family, labels))).info

        assert (family in UNPACKED) == info.padded

    def test_other_numbers_are_refused(self, folder: Callable[..., Path]) -> None:
        request = order_for(folder("bert"))
        rows = check_rows(request, 40)
        padded = PaddedModel(load_transformer(request, torch.float32), request.recipe, "cpu")
        with torch.inference_mode():
            expected = padded(rows)

        assert returns_same(expected, padded, rows, torch.float32)
        assert not returns_same(expected, lambda rows: padded(rows) * 1.01, rows, torch.float32)
        assert not returns_same(expected, lambda rows: padded(rows) * torch.nan, rows, torch.float32)

    def test_an_error_from_within_a_family_is_a_refusal(self) -> None:
        def fail(_rows: Sequence[Row]) -> torch.Tensor:
            raise KeyError("runs")

        assert not returns_same(torch.zeros(1), fail, make_rows([3]), torch.float32)


class TestLayout:
    def test_rows_lie_by_length_with_positions_that_start_again(self) -> None:
        rows = [Row([7, 8, 9], None, 0, 0), Row([5], None, 0, 0), Row([1, 2, 3], [0, 1, 1], 0, 0)]

        layout = pack_rows(rows)

        assert [5, 7, 8, 9, 1, 2, 3] == layout.ids.tolist()
        assert [0, 0, 1, 2, 0, 1, 2] == layout.positions.tolist()
        assert layout.types is not None
        assert [0, 0, 0, 0, 0, 1, 1] == layout.types.tolist()
        assert ([Run(0, 1, 1), Run(1, 2, 3)], [1, 0, 2]) == (layout.runs, layout.order)

    def test_positions_after_a_padding_id_skip_the_padding_that_a_text_spells_out(self) -> None:
        layout = pack_rows([Row([9, 1, 8], None, 0, 0), Row([5, 6], None, 0, 0)], position_offset=1)

        assert [2, 3, 2, 1, 3] == layout.positions.tolist()

    def test_a_pattern_is_no_mask_where_the_row_is_within_the_window(self) -> None:
        pattern = MaskPattern(lambda _batch, _head, query, key: (query - key).abs() <= 2)

        wide = pattern.mask(Run(start=6, count=1, length=4), torch.device("cpu"))

        assert pattern.mask(Run(start=0, count=2, length=3), torch.device("cpu")) is None
        assert wide is not None
        assert not wide[0, 3]
        assert wide.sum() == 14


class TestThreads:
    def test_threads_that_call_at_once_get_the_numbers_of_one(self) -> None:
        found = find_builtin().folder
        recipe = read_recipe(found)
        engine = TorchEngine(OpenRequest(folder=found, recipe=recipe, device="cpu", dtype="float32", threads=2))
        probes = TextEncoder(found, recipe).sample_rows()
        batches = [probes[at:] + probes[:at] for at in range(len(probes))]
        expected = [engine.embed(batch) for batch in batches]

        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(engine.embed, batches))

        assert (2, False) == (engine.info.max_concurrent_batches, engine.info.padded)
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-6)


class TestLinears:
    @pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN")
    @pytest.mark.parametrize("labels", [None, 1])
    @pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3"])
    def test_prepacked_layers_compute_the_numbers_of_plain_ones(
        self, family: str, labels: int | None, folder: Callable[..., Path]
    ) -> None:
        request = order_for(folder(family, labels))
        model = load_transformer(request, torch.float32)
        rows = make_rows([5, 9, 9, 30])
        with torch.inference_mode():
            expected = PaddedModel(model, request.recipe, "cpu")(rows)

            linears.prepack(model)

            assert not any(type(module) is torch.nn.Linear for module in model.modules())
            found = PackedModel(model, request.recipe, 32)(rows)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_layer_is_timed_without_touching_the_model(self, dtype: torch.dtype, folder: Callable[..., Path]) -> None:
        model = load_transformer(order_for(folder("gpt2")), torch.float32)  # has no nn.Linear at all

        times = linears.time_linears(model, dtype)

        assert times.plain > 0
        assert 0 < times.share < 1
        assert times.text_s >= times.best

    @pytest.mark.parametrize(
        ("plain", "prepacked", "swaps"),
        [(1.0, None, False), (1.0, 1.0, False), (1.0, 0.9, False), (1.0, 0.8, True), (1.0, 2.0, False)],
    )
    def test_layers_are_swapped_only_where_that_is_faster_by_enough(
        self, plain: float, prepacked: float | None, swaps: bool
    ) -> None:
        times = linears.LinearTimes(plain, prepacked, 0.1)

        assert (swaps, prepacked if swaps else plain) == (times.prefers_prepacked, times.best)
