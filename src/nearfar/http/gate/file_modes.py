"""Refuses files that every user may write to, where their file system can state that."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path

from nearfar.core.errors import SettingsError

_MOUNTS = Path("/proc/mounts")  # only Linux has it
# File systems of Windows and of shared folders: WSL and Docker Desktop show their files with the mode 777, whatever the
# host's rights are, and chmod changes nothing. Those of FUSE begin so.
_WITHOUT_MODES = {"9p", "cifs", "drvfs", "exfat", "fakeowner", "msdos", "ntfs", "ntfs3", "prl_fs", "smb3", "smbfs"}
_WITHOUT_MODES |= {"vboxsf", "vfat", "virtiofs"}
_ESCAPED = re.compile(r"\\([0-7]{3})")
_log = logging.getLogger(__name__)


def refuse_world_writable(file: Path, mounts: Path = _MOUNTS) -> None:
    """Raise SettingsError if every user may write to the file; log a warning where its file system has no modes."""
    if not file.stat().st_mode & stat.S_IWOTH:
        return
    kind = _find_file_system(file.resolve(), mounts)
    if kind not in _WITHOUT_MODES and not kind.startswith("fuse"):
        raise SettingsError(f"{file}: every user can add keys to it; run: chmod o-w {file}")
    _log.warning(
        "%s: every user may write to it, and its file system, %s, can't deny it; move it to another", file, kind
    )


def _find_file_system(path: Path, mounts: Path) -> str:
    """Return the type of the path's file system; an empty text where the system has no list of them."""
    if not mounts.is_file():
        return ""
    found = (Path("/"), "")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, escaped, kind, *_ = line.split(" ")
        place = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), escaped))
        if path.is_relative_to(place) and len(place.parts) >= len(found[0].parts):  # the last one covers the others
            found = place, kind
    return found[1]
