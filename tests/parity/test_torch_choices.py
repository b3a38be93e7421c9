"""What the Torch engine chooses by itself, by tables of what it may have measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from checkpoints import write_transformer
from msgspec import structs

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.padding import round_up_length
from nearfar.engines.common.precision import PrecisionLoss
from nearfar.engines.torch import choices, kind
from nearfar.engines.torch.choices import choose_dtype
from nearfar.engines.torch.engine import TorchEngine
from nearfar.engines.torch.linears import LinearTimes
from nearfar.engines.torch.loading import open_checkpoint
from nearfar.engines.torch.packing import PackedModel
from nearfar.engines.torch.padded import PaddedModel
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

SMALL = PrecisionLoss(12, 0.99996, 0.99999, of_scores=False)
LARGE = PrecisionLoss(12, 0.98, 0.99, of_scores=False)
BROKEN = PrecisionLoss(12, float("nan"), float("nan"), of_scores=False)


NEEDS_ONEDNN = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")


class TestDtype:
    @pytest.mark.parametrize(
        ("device", "speed", "losses", "expected", "reason"),
        [
            ("cpu", 0.2, {}, "float32", "bfloat16 is 0.2 times as fast as float32 here, less than 1.5"),
            ("cpu", 1.4, {}, "float32", "bfloat16 is 1.4 times as fast as float32 here, less than 1.5"),
            ("cpu", 3.4, {"bfloat16": SMALL}, "bfloat16", f"3.4 times as fast as float32 here; {SMALL}"),
            ("cpu", 3.4, {"bfloat16": LARGE}, "float32", f"bfloat16 loses too much: {LARGE}"),
            ("cuda", 0, {"float16": SMALL}, "float16", f"the device's usual precision; {SMALL}"),
            (
                "cuda",
                0,
                {"float16": BROKEN, "bfloat16": SMALL},
                "bfloat16",
                f"float16 loses too much: {BROKEN}; the device's usual precision; {SMALL}",
            ),
            (
                "cuda",
                0,
                {"float16": LARGE, "bfloat16": LARGE},
                "float32",
                f"float16 loses too much: {LARGE}; bfloat16 loses too much: {LARGE}",
            ),
            ("mps", 0, {"float16": SMALL}, "float16", f"the device's usual precision; {SMALL}"),
            ("mps", 0, {"float16": LARGE}, "float32", f"float16 loses too much: {LARGE}"),
        ],
    )
    def test_auto_takes_what_is_fast_and_loses_little(
        self, device: str, speed: float, losses: dict[str, PrecisionLoss], expected: str, reason: str
    ) -> None:
        choice = choose_dtype(device, lambda: speed, losses.__getitem__, has_probes=True)

        assert (expected, reason) == choice

    @pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
    def test_without_probes_auto_is_float32(self, device: str) -> None:
        choice = choose_dtype(device, lambda: 9.0, lambda _dtype: SMALL, has_probes=False)

        assert ("float32", "there are no texts to compare another precision on") == choice

    def test_auto_on_this_machine_says_what_it_did_and_keeps_the_numbers(self) -> None:
        folder = find_builtin().folder
        recipe = read_recipe(folder)
        probes = TextEncoder(folder, recipe).sample_rows()
        exact = TorchEngine(OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32"))

        engine = TorchEngine(OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="auto", probes=probes))

        assert ("requested", "float32") == (exact.info.dtype_reason, exact.info.dtype)
        reasons = ("times as fast as float32", "cosine to float32")  # it isn't faster, or what it costs
        assert any(words in engine.info.dtype_reason for words in reasons)
        cosines = np.sum(engine.embed(probes) * exact.embed(probes), axis=1)
        assert cosines.min() >= 0.9999

    @pytest.mark.parametrize("prepacked_s", [None, pytest.param(0.1, marks=NEEDS_ONEDNN)])
    def test_a_machine_that_measures_otherwise_opens_otherwise(self, prepacked_s: float | None) -> None:
        """As on a CPU with units for bfloat16, which this one need not have; oneDNN serves it better or not.

        The built-in model is at the very edge of what may be lost, so either end is right if it is reasons.
        """
        folder = find_builtin().folder
        recipe = read_recipe(folder)
        probes = TextEncoder(folder, recipe).sample_rows()
        request = OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="auto", probes=probes)
        exact = TorchEngine(structs.replace(request, dtype="float32")).embed(probes)
        plain_s = {torch.float32: 9.0, torch.bfloat16: 0.2}

        opened = open_checkpoint(
            request,
            lambda _model, dtype: LinearTimes(plain_s[dtype], prepacked_s and prepacked_s * plain_s[dtype], 0.1),
        )

        with torch.inference_mode():
            cosines = (opened.model(probes).numpy() * exact).sum(1)
        rounded = opened.choice.dtype == "bfloat16"
        assert isinstance(opened.model, PackedModel)
        assert rounded != opened.choice.reason.startswith("bfloat16 loses too much: cosine to float32 min 0.99")
        assert cosines.min() >= (0.9998 if rounded else 0.999999)

    def test_int8_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        write_transformer(tmp_path, "bert")
        request = OpenRequest(folder=tmp_path, recipe=read_recipe(tmp_path), device="cpu", dtype="int8")

        with pytest.raises(EngineUnavailable) as refused:
            kind.open(request)

        assert "engine 'torch' has no int8; use engine = \"openvino\" for it, or another dtype" == str(refused.value)


class TestDevices:
    @pytest.mark.parametrize(
        ("cores", "text_s", "expected"),
        [
            (1, 0.1, (1, 1)),
            (2, 0.06, (2, 1)),
            (16, 0.06, (16, 1)),
            (2, 1.9, (1, 2)),
            (16, 1.9, (8, 2)),
            (16, 2.5, (5, 3)),
            (16, 100, (1, 16)),
            (1, 100, (1, 1)),
        ],
    )
    def test_a_batch_gets_as_many_cores_as_a_text_of_the_model_needs(
        self, cores: int, text_s: float, expected: tuple[int, int]
    ) -> None:
        assert expected == choices.split_cores(cores, text_s)

    @pytest.mark.parametrize(
        ("longest", "step", "expected"),
        [(33, 1, 33), (33, 16, 48), (1, 16, 16), (64, 16, 64), (505, 16, 510), (510, 16, 510)],
    )
    def test_lengths_are_rounded_up_but_not_past_the_limit(self, longest: int, step: int, expected: int) -> None:
        assert expected == round_up_length(longest, step, 510)

    @pytest.mark.parametrize("labels", [None, 1])
    @pytest.mark.parametrize("family", ["bert", "roberta", "qwen3"])
    def test_lengths_that_are_rounded_up_change_no_number(
        self, family: str, labels: int | None, tmp_path: Path
    ) -> None:
        """The part of the GPU's path that can be run on a CPU."""
        write_transformer(tmp_path, family, labels=labels)
        request = OpenRequest(folder=tmp_path, recipe=read_recipe(tmp_path), device="cpu", dtype="float32")
        model = load_transformer(request, torch.float32)
        rows = [Row([9, 8, 7, 6][:length] * 3, None, 0, 0) for length in (1, 3, 4)]

        with torch.inference_mode():
            expected = PaddedModel(model, request.recipe, "cpu")(rows)
            found = PaddedModel(model, request.recipe, "cpu", 16)(rows)

        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
