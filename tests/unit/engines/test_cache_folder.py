"""A cache folder that other users may write to isn't used, and a seal is only valid for what was sealed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from nearfar.engines.common.cache_folder import is_sealed, seal, trusted_cache

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """Return a folder that every user can reach."""
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_mode & 0o077 == 0:
            place.chmod(0o755)
    folder = tmp_path / "above" / "cache"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
@pytest.mark.parametrize("place", ["cache", "above"])
def test_a_folder_that_others_may_write_to_is_not_used(
    mode: int, place: str, reachable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a sticky folder others can't rename the cache, so there it may be."""
    changed = reachable if place == "cache" else reachable.parent
    changed.chmod(mode)

    with caplog.at_level(logging.WARNING):
        found = trusted_cache(reachable)

    expected = reachable if place == "above" and mode == 0o1777 else None
    assert expected == found
    assert expected or f"chmod go-w {changed}" in caplog.text


def test_other_folders_are_used(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    (closed / "group").mkdir(mode=0o775)

    assert [None, reachable, closed / "group", closed / "new"] == [
        trusted_cache(folder) for folder in (None, reachable, closed / "group", closed / "new")
    ]


def test_a_seal_is_valid_for_the_same_files_and_the_same_purpose_only(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("x" * 100)
    seal(tmp_path, tmp_path, "both", files, b"weights")

    valid = [is_sealed(tmp_path, tmp_path, "both", files, b"weights")]
    others = [
        is_sealed(tmp_path, tmp_path, "both", files, b"other"),
        is_sealed(tmp_path, tmp_path, "both", files[:1], b"weights"),
        is_sealed(tmp_path, tmp_path, "other", files, b"weights"),
    ]
    files[0].write_text("y" + "x" * 99)
    others.append(is_sealed(tmp_path, tmp_path, "both", files, b"weights"))
    files[0].write_text("x" * 100)
    (tmp_path / ".key").chmod(0o644)
    others.append(is_sealed(tmp_path, tmp_path, "both", files, b"weights"))

    assert [True] == valid
    assert [False] * 5 == others
