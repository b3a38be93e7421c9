"""Similarities of vectors."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.serving.postprocess.scores import cosines, products


@pytest.mark.parametrize("similarity", [cosines, products])
@pytest.mark.parametrize("dim", [7, 384, 1024])
def test_equal_documents_have_equal_similarities_in_whichever_rows(similarity: object, dim: int) -> None:
    assert callable(similarity)
    query, document = np.random.default_rng(0).standard_normal((2, dim)).astype(np.float32)

    found = {count: similarity(query, np.tile(document, (count, 1))) for count in range(1, 80)}

    assert all(len({*scores.tolist()}) == 1 for scores in found.values())
    assert found[1] == pytest.approx(similarity(query, document[None].astype(np.float64)), abs=1e-4)
