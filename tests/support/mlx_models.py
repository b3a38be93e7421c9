"""Tiny checkpoints opened on MLX, for the tests of that engine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from checkpoints import write_files
from safetensors.torch import load_file, save_file
from texts import varied_texts

from nearfar.engines.base import OpenRequest
from nearfar.engines.mlx import kind
from nearfar.engines.torch.engine import TorchEngine
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from nearfar.core.settings import Device, Dtype
    from nearfar.core.types import FloatArray
    from nearfar.engines.mlx.engine import MlxEngine
    from nearfar.models.tokenization.row import Row

DEVICE: Device = "mps" if os.environ.get("NEARFAR_TEST_DEVICE") == "mps" else "cpu"
QUERY = "a question? the fox"
TEXTS = varied_texts(90)
MIXED = [*TEXTS[:10], "x", "the fox", *TEXTS[25:35]]  # from one token to far more than the limit


class Opened(NamedTuple):
    folder: Path
    tokens: TextEncoder
    engine: MlxEngine

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return [row for row in self.tokens.encode(texts) if row.ids]

    def pairs(self, texts: Sequence[str]) -> list[Row]:
        return self.tokens.encode_pairs(QUERY, texts, None)


def order_of(folder: Path, dtype: Dtype = "float32") -> OpenRequest:
    recipe = read_recipe(folder)
    probes = TextEncoder(folder, recipe).sample_rows()
    return OpenRequest(folder=folder, recipe=recipe, device=DEVICE, dtype=dtype, probes=probes)


def open_mlx(folder: Path, dtype: Dtype = "float32") -> Opened:
    request = order_of(folder, dtype)
    engine: Any = kind.open(request)
    return Opened(folder, TextEncoder(folder, request.recipe), engine)


def by_torch(opened: Opened, rows: Sequence[Row]) -> FloatArray:
    request = order_of(opened.folder)
    engine = TorchEngine(msgspec.structs.replace(request, device="cpu"))
    return engine.embed(rows) if engine.info.dim else engine.score(rows)


def with_config(folder: Path, **options: object) -> Path:
    return write_files(folder, {"config.json": json.loads((folder / "config.json").read_text()) | options})


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
