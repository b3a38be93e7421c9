"""Reads TOML files as editors write them: UTF-8 with or without a byte order mark, or UTF-16 with one.

Replaces them as a whole, one process at a time.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearfar.core.errors import SettingsError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NO_TEXT = "is not TOML: it isn't text in UTF-8; save it as UTF-8"
_STRAY = r"[\s\ufeff\u200b\x00]+"  # white space, byte order marks and zero-width spaces
_AROUND = re.compile(rf"\A{_STRAY}|{_STRAY}\Z")


def read_toml(file: Path) -> dict[str, object]:
    """Return the content of a TOML file. Raises SettingsError, with its path, if it can't be read or isn't TOML."""
    return parse_toml(read_text(file), file)


def read_text(file: Path) -> str:
    """Return the text of a file. Raises SettingsError, with its path, if it can't be read or isn't text."""
    try:
        text = decode_text(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: {_NO_TEXT}") from error
    if "\0" in text:  # UTF-16 without a mark, or UTF-32
        raise SettingsError(f"{file}: {_NO_TEXT}")
    return text


def parse_toml(text: str, file: Path) -> dict[str, object]:
    """Parse the text of a TOML file. Raises SettingsError, with its path."""
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits are ValueErrors
        raise SettingsError(f"{file}: is not TOML: {error}") from error


def replace_file(file: Path, text: str, mode: int = 0o644) -> None:
    """Write a new file and rename it, so that no reader sees half of it. Raises OSError.

    An existing file keeps its mode and its owner; a new one gets ``mode``. A symbolic link keeps its place.
    """
    file = file.resolve()
    with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        made = Path(new.name)
        try:
            new.write(text.encode())
            new.flush()
            os.fsync(new.fileno())
            if file.exists():
                old, mine = file.stat(), made.stat()
                mode = stat.S_IMODE(old.st_mode)
                if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
                    os.chown(made, old.st_uid, old.st_gid)
            made.chmod(mode)
            made.replace(file)
        except BaseException:
            made.unlink(missing_ok=True)
            raise


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for other processes that edit the file. Raises SettingsError if its folder can't be read.

    The lock is on the folder, because the file is replaced.
    """
    try:
        folder = os.open(file.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def decode_text(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises UnicodeDecodeError."""
    return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")


def strip_text(text: str) -> str:
    """Return the text without white space and byte order marks around it."""
    return _AROUND.sub("", text)
