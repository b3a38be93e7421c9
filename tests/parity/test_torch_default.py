"""While one model loads, others serve; transformers sets Torch's default precision for the whole process meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, write_transformer

from nearfar.engines.base import OpenRequest
from nearfar.engines.torch import kind
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def _default_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_default_precision")
@pytest.mark.parametrize("labels", [None, 1], ids=["embeds", "ranks"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_open_models_numbers_do_not_depend_on_torchs_default_precision(
    family: str, labels: int | None, tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / "model", family, labels=labels)
    recipe = read_recipe(folder)
    rows = TextEncoder(folder, recipe).sample_rows()
    engine = kind.open(OpenRequest(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=rows))
    run = engine.score if labels else engine.embed
    expected = run(rows)

    torch.set_default_dtype(torch.bfloat16)
    beside = run(rows)

    np.testing.assert_array_equal(expected, beside)
