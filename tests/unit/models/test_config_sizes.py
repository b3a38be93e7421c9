"""Sizes that a checkpoint's weights can't have are refused before anything is built."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_transformer

from nearfar.core.errors import CheckpointError
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES = ("bert", "modernbert", "qwen3", "xlm-roberta")
BILLION = 10**9
ABSURD = [
    *[{name: BILLION} for name in ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")],
    *[{name: BILLION} for name in ("intermediate_size", "num_attention_heads", "type_vocab_size", "num_labels")],
    *[{name: -4} for name in ("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads")],
    *[{name: 0} for name in ("num_hidden_layers", "hidden_size", "vocab_size", "n_layer")],
    {"num_hidden_layers": 0.0},
    {"num_hidden_layers": 1000},
    {"num_hidden_layers": 1e9},
    {"num_hidden_layers": 10**30},
    {"vocab_size": 10**7},
    {"hidden_size": 50_000, "num_hidden_layers": 500},
    {"intermediate_size": 60_000, "num_hidden_layers": 400},
    {"max_position_embeddings": 2**25},
    {"text_config": {"num_hidden_layers": BILLION}},
    {"task_specific_params": [{"hidden_size": BILLION}]},
    {"depths_and_size": [1, BILLION]},
]


@pytest.mark.parametrize("changes", ABSURD, ids=str)
def test_a_size_that_the_weights_do_not_have_is_refused_at_once(changes: dict[str, Any], bert: Path) -> None:
    file = bert / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    began = time.process_time()

    with pytest.raises(CheckpointError, match=r"config\.json: .* doesn't fit, since (the weights|no model)"):
        read_recipe(bert)
    assert time.process_time() - began < 1


def test_options_that_override_the_configuration_are_checked_as_well(bert: Path) -> None:
    (bert / "sentence_bert_config.json").write_text(json.dumps({"config_kwargs": {"num_hidden_layers": BILLION}}))

    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        read_recipe(bert)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_real_architectures_are_accepted(family: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / family, family)
    file = folder / "config.json"
    large = {
        "max_position_embeddings": 10_485_760,
        "rope_theta": 10**9,
        "eos_token_id": 128_009,
        "initializer_range": 1,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | large))

    assert read_recipe(folder).hidden_size
