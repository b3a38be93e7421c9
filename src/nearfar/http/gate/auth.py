"""The keys that a running server knows, and the check of a request's key."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from litestar.types import Scope as AsgiScope

from nearfar.core.caller import ALL_SCOPES, Caller, RateLimit
from nearfar.core.errors import ApiKeyInvalid, ApiKeyMissing, SettingsError
from nearfar.http.gate.keys import KeyEntry, hash_key, is_readable, read_keys

_CHECK_EVERY_S = 1.0  # the most often that the file is checked for changes
_KEY_HEADERS = {b"x-api-key", b"api-key"}
_log = logging.getLogger(__name__)


class ApiKey:
    """A known key, with what its callers have used of its limits."""

    def __init__(self, entry: KeyEntry) -> None:
        self.entry = entry
        self.digest = bytes.fromhex(entry.sha256)
        self.rate_limit = RateLimit(entry.max_concurrent, entry.tokens_per_minute)


class KeyRing:
    """All known keys: ``api_key``, with every scope, and those of ``file``.

    The file is read again after a change. If it is invalid then, the keys stay as they are and the error is logged. At
    first they are ``known``, the entries that an earlier worker has read.
    """

    def __init__(
        self,
        api_key: str | None,
        file: Path | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        known: tuple[KeyEntry, ...] = (),
    ) -> None:
        self._single = (
            [ApiKey(KeyEntry(name="default", sha256=hash_key(api_key), scopes=ALL_SCOPES))] if api_key else []
        )
        self._file = file
        self._clock = clock
        self._checked_at = clock()
        self._digest = _digest(file) if file else None
        self.on_change: Callable[[], None] = lambda: None
        self.entries = self._read_first(file, known) if file else ()  # of the file
        self._keys = [*self._single, *map(ApiKey, self.entries)]
        self._digests = {key.digest for key in self._keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __contains__(self, text: bytes) -> bool:
        """Return whether a text is a key. The time that this takes depends on the text."""
        return hashlib.sha256(text).digest() in self._digests

    def find(self, presented: bytes) -> ApiKey | None:
        """Return the key, or None. Compares with every key, so that the time taken doesn't depend on which matches."""
        self._reload_if_changed()
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _read_first(self, file: Path, known: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        try:
            return read_keys(file)
        except SettingsError as error:
            if not known:
                raise
            _log.error("API keys not loaded, keeping those of the last worker: %s", error)
            return known

    def _reload_if_changed(self) -> None:
        now = self._clock()
        if self._file is None or now - self._checked_at < _CHECK_EVERY_S:
            return
        self._checked_at = now
        digest = _digest(self._file)
        if digest == self._digest:
            return
        self._digest = digest
        try:
            entries = read_keys(self._file)
        except SettingsError as error:
            _log.error("API keys not reloaded, keeping the current ones: %s", error)
            return
        known = {key.entry: key for key in self._keys}  # an unchanged entry keeps its limits' counters
        self._keys = [*self._single, *(known.get(entry) or ApiKey(entry) for entry in entries)]
        self._digests = {key.digest for key in self._keys}
        self.entries = entries
        self.on_change()
        _log.info("%d API keys loaded from %s", len(entries), self._file)


class KeyGuard:
    """Requires one of the keys, except on routes marked ``public``.

    It is sent as ``Authorization: Bearer KEY``, or else as ``x-api-key`` or ``api-key``, as Azure's clients do.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def check(self, scope: AsgiScope) -> None:
        """Store the key's caller in the request's state. Raises ApiKeyMissing or ApiKeyInvalid."""
        presented = _bearer(scope) or next((value for name, value in scope["headers"] if name in _KEY_HEADERS), b"")
        if not presented.strip():
            raise ApiKeyMissing("no API key; send it as: Authorization: Bearer KEY")
        key = self._ring.find(presented.strip())
        if key is None:
            raise ApiKeyInvalid("the API key is not one of this server's keys")
        scope["state"]["caller"] = Caller(name=key.entry.name, scopes=key.entry.scopes, rate_limit=key.rate_limit)


def _bearer(scope: AsgiScope) -> bytes:
    header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, presented = header.strip().partition(b" ")
    return presented if scheme.lower() == b"bearer" else b""


def _digest(file: Path) -> bytes | None:
    """Return a hash of the file's content, or None if it can't be read. Size and time may stay as they were."""
    try:
        return hashlib.sha256(file.read_bytes()).digest() if is_readable(file) else None
    except OSError:
        return None
