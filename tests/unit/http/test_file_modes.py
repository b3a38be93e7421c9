"""A file that every user may write to is refused, unless its file system shows all files so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from nearfar.core.errors import SettingsError
from nearfar.http.gate.file_modes import refuse_world_writable

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file that every user may write to, in a folder with a space in its name."""
    made = tmp_path / "my keys" / "keys.toml"
    made.parent.mkdir()
    made.touch()
    made.chmod(0o777)
    return made


def mounts(file: Path, *kinds: tuple[str, str]) -> Path:
    """Write a list of mounts: the root, and each of these places and types."""
    lines = [("/", "ext4"), *((place.replace(" ", r"\040"), kind) for place, kind in kinds)]
    listed = file.with_name("mounts")
    listed.write_text("".join(f"none {place} {kind} rw,aname=drvfs;uid=0 0 0\n" for place, kind in lines))
    return listed


@pytest.mark.parametrize("kind", ["9p", "drvfs", "virtiofs", "fuse.grpcfuse", "fuseblk", "vfat", "cifs"])
def test_a_file_system_without_modes_only_causes_a_warning(
    kind: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        refuse_world_writable(file, mounts(file, (str(file.parent), kind)))

    assert [f"{file}: every user may write to it, and its file system, {kind}, can't deny it; move it to another"] == [
        record.getMessage() for record in caplog.records
    ]


def test_on_any_other_file_system_it_is_refused(file: Path) -> None:
    above, here, beside = str(file.parent.parent), str(file.parent), str(file.parent) + "s"
    listed: list[tuple[tuple[str, str], ...]] = [
        (),
        ((here, "ext4"),),
        ((beside, "9p"),),
        ((above, "9p"), (here, "xfs")),
        ((here, "9p"), (here, "overlay")),
    ]
    for kinds in listed:
        with pytest.raises(SettingsError, match="every user can add keys to it; run: chmod o-w"):
            refuse_world_writable(file, mounts(file, *kinds))
    with pytest.raises(SettingsError, match="every user can add keys"):
        refuse_world_writable(file, file.with_name("no list"))


def test_a_file_of_its_owner_passes_everywhere(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(0o644)

    refuse_world_writable(file, mounts(file))

    assert not caplog.records
