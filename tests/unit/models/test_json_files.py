"""JSON files are read as Python reads them: with NaN and Infinity, and refused where they are damaged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_files

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import TokenizerConfig
from nearfar.models.files.json_files import read_json
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

BERT = '"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64'


def test_numbers_that_are_not_finite_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"limits": [0.0, Infinity, -Infinity], "model_max_length": NaN, "name": "Infinity"}')

    found = read_json(file, dict[str, Any])

    assert found["limits"] == [0, math.inf, -math.inf]
    assert math.isnan(found["model_max_length"])
    assert math.isnan(read_json(file, TokenizerConfig).model_max_length or 0)


@pytest.mark.parametrize("limit", ["Infinity", "NaN", "1e30"])
def test_a_limit_that_is_not_finite_is_none(limit: str, tmp_path: Path) -> None:
    config = f'{{{BERT}, "time_step_limit": [0.0, Infinity]}}'
    tokenizer = f'{{"model_max_length": {limit}}}'
    write_files(tmp_path, {"config.json": config.encode(), "tokenizer_config.json": tokenizer.encode()})
    write_files(tmp_path, {"model.safetensors": b""})

    assert read_recipe(tmp_path).max_tokens == 64


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": Infinity', "is damaged"),
        (b'{"a": NaN, "\xff": 1}', "is damaged"),
        (b'{"a": Infinite}', "is damaged"),
        (b'{"model_max_length": "x", "a": NaN}', "has unexpected content"),
        (b'["NaN"]', "has unexpected content"),
    ],
)
def test_damaged_files_stay_refused(content: bytes, why: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"tokenizer_config.json": content})

    with pytest.raises(CheckpointError, match=why):
        read_json(tmp_path / "tokenizer_config.json", TokenizerConfig)
