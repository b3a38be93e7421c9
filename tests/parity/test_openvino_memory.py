"""OpenVINO may return as if nothing were wrong when memory has run out, its outputs those of the batch before."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.engines.openvino.compiled_model import _NOT_WRITTEN, refuse_unwritten


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
