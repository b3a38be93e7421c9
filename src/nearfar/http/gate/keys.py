"""The file of API keys: read by the server, edited by ``nearfar keys``. It has SHA-256 hashes, never a key."""

from __future__ import annotations

import difflib
import hashlib
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from nearfar.core.caller import Scope
from nearfar.core.errors import SettingsError
from nearfar.core.toml_files import locked, parse_toml, read_text, replace_file, strip_text
from nearfar.http.gate.file_modes import refuse_world_writable

_MAX_BYTES = 10_000_000  # of the file: fifty thousand keys
_TABLE = re.compile(r"^[ \t]*\[\[[ \t]*keys[ \t]*\]\]", re.MULTILINE)
_Name = Annotated[str, Meta(pattern=r"^[\w.-]{1,64}\Z")]
_EXPECTED = {  # what to write instead, where msgspec would show a regular expression
    "name": "expected a name of at most 64 letters, digits, dots, hyphens and underscores",
    "sha256": "expected the 64 lowercase hexadecimal digits that nearfar keys new prints",
}


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[keys]]`` table of the file.

    Keys must be long and random, as ``nearfar keys new`` makes them: a plain hash doesn't protect a key that can be
    guessed.
    """

    name: _Name
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("embed", "rerank")
    max_concurrent: Annotated[int, Meta(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1)] | None = None


class _KeysFile(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[tuple[KeyEntry, ...], Meta(min_length=1)]


def read_keys(file: Path) -> tuple[KeyEntry, ...]:
    """Read a file of keys. Raises SettingsError if it is unreadable or invalid, or if two keys have one name."""
    if not is_readable(file):
        raise SettingsError(f"{file}: is not a regular file of at most {_MAX_BYTES:,} bytes")
    return _parse(_read(file), file)


def _read(file: Path) -> str:
    """Return the text of the file. Raises SettingsError if every user may write to it."""
    text = read_text(file)
    refuse_world_writable(file)
    return text


def is_readable(file: Path) -> bool:
    """Return whether reading the file can't take forever, as a pipe's or a device's does. A missing one fails later."""
    try:
        status = file.stat()
    except OSError:
        return True
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES)


def make_key(name: str, scopes: Sequence[str] = ()) -> tuple[str, str]:
    """Generate a key of 256 random bits. Returns it and its entry for the file, which contains only the hash.

    Raises SettingsError for a name that the file can't have.
    """
    _check_name(name)
    key = _random_key()
    lines = ["[[keys]]", f'name = "{name}"', f'sha256 = "{hash_key(key)}"']
    if scopes:
        lines.append(f"scopes = {msgspec.json.encode(scopes).decode()}")
    return key, "\n".join(lines)


def add_key(file: Path, name: str, scopes: Sequence[str] = ()) -> str:
    """Add an entry to the file, which may be new, and return its key. Raises SettingsError if the name is taken."""
    key, entry = make_key(name, scopes)
    with locked(file):
        text = _read(file) if file.exists() else ""
        before = _parse(text, file) if text.strip() else ()
        if any(known.name == name for known in before):
            raise SettingsError(f"{file}: has a key named {name}; replace it with: nearfar keys rotate {name}")
        _replace(file, f"{text.rstrip()}\n\n{entry}\n".lstrip(), (*before, *_parse(entry, file)))
    return key


def revoke_key(file: Path, name: str) -> None:
    """Remove an entry from the file; the others, and comments, stay.

    Raises SettingsError if there is no such key, or no other: a server keeps its keys if the file has none.
    """
    with locked(file):
        text = _read(file)
        keys, index = _find(text, file, name)
        if len(keys) == 1:
            raise SettingsError(f"{file}: {name} is the only key; replace it with: nearfar keys rotate {name}")
        _replace(file, _without(text, index), keys[:index] + keys[index + 1 :])


def rotate_key(file: Path, name: str) -> str:
    """Replace the key of an entry, which keeps its scopes and limits. Return the new key."""
    key = _random_key()
    with locked(file):
        text = _read(file)
        keys, index = _find(text, file, name)
        changed = msgspec.structs.replace(keys[index], sha256=hash_key(key))
        new_text = text.replace(keys[index].sha256, changed.sha256)
        _replace(file, new_text, (*keys[:index], changed, *keys[index + 1 :]))
    return key


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def _check_name(name: str) -> None:
    try:
        msgspec.convert(name, _Name)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name!r}: {_EXPECTED['name']}") from error


def _random_key() -> str:
    return f"nf-{secrets.token_urlsafe(32)}"


def _parse(text: str, file: Path) -> tuple[KeyEntry, ...]:
    try:
        keys = msgspec.convert(_strip_all(parse_toml(text, file)), _KeysFile).keys
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`").rpartition(".")[2]
        if "matching regex" in message:
            message = _EXPECTED[field]
        where = f"{path.rstrip('`')}: " if path else ""
        raise SettingsError(f"{file}: {where}{message[:1].lower()}{message[1:]}") from error
    names = [entry.name for entry in keys]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise SettingsError(f"{file}: two keys are named {repeated!r}")
    return keys


def _strip_all(value: object) -> object:
    """Remove white space around every string."""
    if isinstance(value, str):
        return strip_text(value)
    if isinstance(value, list):
        return [_strip_all(item) for item in value]
    return {name: _strip_all(item) for name, item in value.items()} if isinstance(value, dict) else value


def _find(text: str, file: Path, name: str) -> tuple[tuple[KeyEntry, ...], int]:
    """Return all entries, and the index of the one with this name. Raises SettingsError if there is none."""
    _check_name(name)
    keys = _parse(text, file)
    names = [entry.name for entry in keys]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(names)}"
        raise SettingsError(f"{file}: no key is named {name}; {hint}")
    return keys, names.index(name)


def _without(text: str, index: int) -> str:
    """Return the text without its entry at ``index``, but with the comments before the next entry."""
    starts = [*(found.start() for found in _TABLE.finditer(text)), len(text)]
    if index + 1 >= len(starts):
        return text
    before, entry, after = text[: starts[index]], text[starts[index] : starts[index + 1]], text[starts[index + 1] :]
    lines = entry.splitlines(keepends=True)
    while not lines[-1].strip() or lines[-1].lstrip().startswith("#"):
        after = lines.pop() + after
    return before + after.lstrip("\r\n")


def _replace(file: Path, text: str, expected: tuple[KeyEntry, ...]) -> None:
    """Replace the file. Raises SettingsError if that isn't possible, or if its keys wouldn't be the expected ones."""
    if _parse(text, file) != expected:
        raise SettingsError(f"{file}: has entries that nearfar can't change; edit it, or begin each with [[keys]]")
    try:
        replace_file(file, text)
    except OSError as error:
        raise SettingsError(f"{file}: can't be written ({error.strerror})") from error
