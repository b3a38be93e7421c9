"""What lower precisions cost: heads stay in float32 on every engine, and the loss that is stated is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoints import write_transformer
from texts import varied_texts

from nearfar.engines import mlx, openvino, torch
from nearfar.engines.base import OpenRequest
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.core.settings import Dtype

ENGINES: dict[str, Any] = {"mlx": mlx.kind, "openvino": openvino.kind, "torch": torch.kind}
QUERY = "the quick brown fox"


def request_for(folder: Path, dtype: Dtype) -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(
        folder=folder,
        recipe=recipe,
        device="cpu",
        dtype=dtype,
        probes=probes,
        cache_dir=folder.parent / "cache",
        threads=1,
    )


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3"])
def test_logits_in_bfloat16_make_no_more_documents_equal_than_in_float32(
    family: str, engine: str, tmp_path: Path
) -> None:
    if engine == "openvino":
        from nearfar.engines.openvino.compiled_model import supports

        if not supports("bfloat16"):
            pytest.skip("this processor doesn't compute in bfloat16")
    folder = write_transformer(tmp_path / "reranker", family, labels=1)
    pairs = TextEncoder(folder, read_recipe(folder)).encode_pairs(QUERY, varied_texts(150), None)

    exact, rounded = (
        ENGINES[engine].open(request_for(folder, dtype)).score(pairs) for dtype in ("float32", "bfloat16")
    )

    assert len({*rounded.tolist()}) >= 0.97 * len({*exact.tolist()})
    np.testing.assert_allclose(exact, rounded, atol=0.1 * float(np.ptp(exact)) + 0.01)
