"""MLX reads a checkpoint as transformers does: missing options, the last token, and which layers attend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import write_transformer
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForSequenceClassification

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.engines.base import Engine

pytest.importorskip("mlx.core")


def opened(folder: Path, engine: str) -> Engine:
    request = OpenRequest(folder=folder, recipe=read_recipe(folder), device="cpu", dtype="float32", threads=1)
    return installed_engines()[engine].open(request)


def rows_of(*ids: Sequence[int]) -> list[Row]:
    return [Row(list(one), None, len(one), 0) for one in ids]


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.mark.parametrize("engine", ["mlx", "torch"])
def test_a_decoder_s_classifier_reads_the_last_token_that_is_not_padding(engine: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "qwen2", labels=1)
    padding = 9
    change_config(folder, pad_token_id=padding)
    shared = list(range(20, 60))  # long enough to be computed once
    # Also rows that have nothing but padding left after the shared ids, and nothing but padding at all.
    rows = rows_of([30, 31, padding], [*shared, padding], [*shared, 70, 71, padding, padding], [padding, padding])
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = [float(model(torch.tensor([row.ids])).logits) for row in rows]

    loaded = opened(folder, engine)

    assert loaded.info.shares_prefixes
    assert np.abs(loaded.score(rows) - expected).max() < 1e-5
    assert np.abs([loaded.score([row])[0] for row in rows] - np.array(expected)).max() < 1e-5


@pytest.mark.parametrize("layers", [["conv", "conv"], ["full_attention", "full_attention"], ["conv", "full_attention"]])
def test_lfm2_may_attend_in_all_layers_or_in_none(layers: list[str], tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model", "lfm2", layer_types=layers)
    rows = rows_of([5, 6, 7, 8, 9], [4, 5])
    model = AutoModel.from_pretrained(folder, use_cache=False).eval()
    with torch.no_grad():
        expected = [model(torch.tensor([row.ids])).last_hidden_state[0].numpy() for row in rows]

    found = opened(folder, "mlx").hidden_states(rows)

    assert all(np.abs(one - other).max() < 1e-4 for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("family", ["qwen3", "gemma"])
def test_an_option_that_config_json_lacks_is_what_transformers_takes(family: str, tmp_path: Path) -> None:
    size = CONFIG_MAPPING[family]().head_dim
    folder = write_transformer(tmp_path / "model", family, head_dim=size, num_key_value_heads=4)
    change_config(folder, head_dim=None)
    rows = rows_of([5, 6, 7, 8, 9])
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(torch.tensor([rows[0].ids])).last_hidden_state[0].numpy()

    (found,) = opened(folder, "mlx").hidden_states(rows)

    assert np.abs(found - expected).max() < 1e-4


def test_the_defaults_are_those_of_the_installed_transformers() -> None:
    from nearfar.engines.mlx.upstream import DEFAULTS

    for family, defaults in DEFAULTS.items():
        config = CONFIG_MAPPING[family]()
        assert defaults == {name: getattr(config, name) for name in defaults}, family
