"""OpenVINO may return as if nothing were wrong when memory has run out, its outputs those of the batch before."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nearfar.engines.base import OpenRequest
from nearfar.engines.openvino import kind
from nearfar.engines.openvino.compiled_model import _NOT_WRITTEN, refuse_unwritten
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

SMAPS = Path("/proc/self/smaps")


@pytest.mark.parametrize(
    "answers",
    [
        [np.full((2, 4), _NOT_WRITTEN)],
        [np.ones((1, 4), np.float32)],
        [np.ones((2, 4)), np.full((2, 3, 4), _NOT_WRITTEN)],
    ],
    ids=["as they were left", "another batch's shape", "one output of two"],
)
def test_outputs_that_were_not_written_are_no_answer(
    answers: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> None:
    with pytest.raises(MemoryError, match="left its outputs unchanged"):
        refuse_unwritten(answers, 2)


def test_outputs_that_were_written_are() -> None:
    refuse_unwritten([np.ones((2, 4), np.float32)], 2)


@pytest.mark.skipif(not SMAPS.exists(), reason="only Linux has smaps")
def test_weights_that_were_packed_are_no_longer_resident(tmp_path: Path) -> None:
    folder = find_builtin().folder
    recipe = read_recipe(folder)
    tokens = TextEncoder(folder, recipe)
    request = OpenRequest(
        folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=tokens.sample_rows(), cache_dir=tmp_path
    )
    row = tokens.encode(["the fox"])
    expected = kind.open(request).embed(row)

    engine = kind.open(request)
    areas = re.findall(rf"{tmp_path}\S+\.bin\nSize: +(\d+) kB\n(?:[^-\n]+\n)*?Rss: +(\d+) kB", SMAPS.read_text())

    assert sum(int(size) for size, _ in areas) > 80_000
    assert sum(int(resident) for _, resident in areas) < 40_000
    np.testing.assert_allclose(engine.embed(row), expected, rtol=0, atol=1e-6)
