"""API keys: what each may be used for, and how much. Only hashes are known; a file of them may change meanwhile."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
import tomllib
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from nearfar.core.caller import ALL_SCOPES, RateLimit, Scope
from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_LOOK_EVERY_S = 1.0  # how soon a changed file counts
_log = logging.getLogger(__name__)


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[keys]]`` of a file: the key's SHA-256, what it may be used for, and its limits.

    Keys must be long and random, as those of ``nearfar keys new`` are: a hash like this protects nothing that can be
    guessed. Without ``scopes`` a key may embed and rerank.
    """

    name: Annotated[str, Meta(pattern=r"^[\w.-]{1,64}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("embed", "rerank")
    max_concurrent: Annotated[int, Meta(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Meta(ge=1)] | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[tuple[KeyEntry, ...], Meta(min_length=1)]


class Key:
    """A key that the server knows, and what is left of its limits."""

    def __init__(self, entry: KeyEntry) -> None:
        self.entry = entry
        self.digest = bytes.fromhex(entry.sha256)
        self.rate_limit = RateLimit(entry.max_concurrent, entry.tokens_per_minute)


class KeyRing:
    """All keys. ``file`` is read again when it changes; a broken one changes nothing, and the log says so."""

    def __init__(self, api_key: str | None, file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        own = [KeyEntry(name="default", sha256=hash_of(api_key.encode()), scopes=ALL_SCOPES)] if api_key else []
        self._own = [Key(entry) for entry in own]
        self._file = file
        self._clock = clock
        self._looked_at = clock()
        self._stamp = _stamp(file) if file else None
        self._keys = [*self._own, *(Key(entry) for entry in read_keys(file))] if file else self._own

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: bytes) -> Key | None:
        """Find the key. Every one is compared, whichever it is, so that the time taken tells nothing."""
        self._look_again()
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look_again(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            entries = read_keys(self._file)
        except SettingsError as error:
            _log.error("the keys stay as they were: %s", error)
            return
        self._keys = [*self._own, *self._kept(entries)]
        _log.info("%d keys were read from %s", len(entries), self._file)

    def _kept(self, entries: Sequence[KeyEntry]) -> list[Key]:
        """Keep what is left of the limits of keys that stay as they are."""
        known = {key.entry: key for key in self._keys}
        return [known.get(entry) or Key(entry) for entry in entries]


def read_keys(file: Path) -> tuple[KeyEntry, ...]:
    """Read a file of keys. Raises SettingsError, with the place, for one that can't be read or has a name twice."""
    try:
        keys = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _File).keys
    except OSError as error:
        raise SettingsError(f"{file}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise SettingsError(f"{file}: {error}") from error
    names = [entry.name for entry in keys]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SettingsError(f"{file}: two keys are called {twice!r}")
    return keys


def make_key(name: str, scopes: Sequence[str] = ()) -> tuple[str, str]:
    """Make a key of 256 random bits; give it, and the entry for a file, which doesn't hold it."""
    key = f"nf-{secrets.token_urlsafe(32)}"
    lines = ["[[keys]]", f'name = "{name}"', f'sha256 = "{hash_of(key.encode())}"']
    if scopes:
        lines.append(f"scopes = {msgspec.json.encode(scopes).decode()}")
    return key, "\n".join(lines)


def hash_of(key: bytes) -> str:
    """Give what is kept of a key."""
    return hashlib.sha256(key).hexdigest()


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
