"""What a model is for, where its files may be read in two ways and the settings decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import write_transformer
from llm_reranker_models import write_judge

from nearfar import ModelSettings, Settings
from nearfar.core.errors import SettingsError
from nearfar.models.reading.reader import read_recipe
from nearfar.serving.registry.discovery import discover_model

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.core.types import Task


@pytest.mark.parametrize(
    ("name", "task", "outputs"),
    [
        ("words", None, ("dense",)),
        ("words", "sparse", ("sparse",)),
        ("splade-v3", None, ("sparse",)),
        ("splade-v3", "embed", ("dense",)),
    ],
)
def test_a_model_that_guesses_words_embeds_or_weighs_them(
    name: str, task: Task | None, outputs: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write_transformer(tmp_path / name, "bert", masked=True)

    assert outputs == read_recipe(folder, task=task).outputs


@pytest.mark.parametrize(("task", "kind"), [(None, "score"), ("rank", "score"), ("embed", "embed")])
def test_a_language_model_judges_or_embeds(task: Task | None, kind: str, tmp_path: Path) -> None:
    folder = write_judge(tmp_path, "qwen3-reranker")

    assert kind == read_recipe(folder, task=task).task


def test_a_model_for_something_else_is_refused(bert: Path) -> None:
    with pytest.raises(SettingsError, match="can't classify, only embed, rank"):
        discover_model(ModelSettings(name=str(bert), task="classify"), Settings(engine="torch"))
