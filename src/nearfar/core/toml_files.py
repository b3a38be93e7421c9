"""Reads TOML files as editors write them: UTF-8 with or without a byte order mark, or UTF-16 with one."""

from __future__ import annotations

import codecs
import re
import tomllib
from pathlib import Path

from nearfar.core.errors import SettingsError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_STRAY = r"[\s\ufeff\u200b\x00]+"  # white space, byte order marks and zero-width spaces
_AROUND = re.compile(rf"\A{_STRAY}|{_STRAY}\Z")


def read_toml(file: Path) -> dict[str, object]:
    """Return the content of a TOML file. Raises SettingsError, with its path, if it can't be read or isn't TOML."""
    try:
        return tomllib.loads(decode_text(file.read_bytes()).replace("\r\n", "\n"))
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: is not TOML: it isn't text in UTF-8; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits are ValueErrors
        raise SettingsError(f"{file}: is not TOML: {error}") from error


def decode_text(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises UnicodeDecodeError."""
    return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")


def strip_text(text: str) -> str:
    """Return the text without white space and byte order marks around it."""
    return _AROUND.sub("", text)
