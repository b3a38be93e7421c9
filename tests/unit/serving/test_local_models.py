"""The models on this disk: what is listed of the settings' folders and of the hub's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import write_transformer

from nearfar import ModelSettings, Settings
from nearfar.serving.local_models import LocalModel, find_local_models

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_folders_and_each_revision_in_the_cache_are_listed(tmp_path: Path) -> None:
    good = write_transformer(tmp_path / "good", "bert")
    repository = tmp_path / "cache" / "models--owner--model"
    write_transformer(repository / "snapshots" / COMMIT, "bert", labels=1)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (tmp_path / "cache" / "models--owner--other" / "snapshots" / COMMIT).mkdir(parents=True)
    settings = Settings(models=(ModelSettings(name=str(good)),))

    found = {model.name: model for model in find_local_models(settings, tmp_path / "cache")}

    assert LocalModel(name=str(good), about="32 dimensions, mean pooling", can_be_served=True) == found[str(good)]
    cached = found["owner/model@01234567"]
    assert ("reranker", True) == (cached.about, cached.can_be_served)
    assert cached.bytes == sum(file.stat().st_size for file in (repository / "snapshots").rglob("*.*"))
    assert not found["owner/other@01234567"].can_be_served
