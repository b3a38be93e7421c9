"""The state folder and its permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nearfar.batches.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("exists", [False, True])
def test_other_users_can_read_nothing_of_the_state_folder(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "state"
    if exists:
        folder.mkdir(mode=0o755)

    store = Store(folder)
    readable = [path.name for path in folder.iterdir() if path.stat().st_mode & 0o077]
    store.close()

    assert exists or not folder.stat().st_mode & 0o077
    assert readable == ["lock"]
