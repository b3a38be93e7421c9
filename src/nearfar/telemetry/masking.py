"""Masks keys in what a client has chosen, such as a path, before it is logged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import unquote

_MASK = "***"
_DECODED = 10  # times that a path may be percent-encoded
_MAX_READ = 1000  # characters; what is behind them isn't logged
# A query that was encoded into the path, and values that are called a key.
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_NAMED = re.compile(
    r"(?i)((?<![a-z])(?:bearer|basic|api[-_]?key|key|(?:access[-_]?)?token|secret|password)[\s=:/,]+)[^\s=:/,&;]+"
)
_TOKEN = re.compile(r"[^\s/&=:;,@\"']+")
# Prefixes of keys of services that clients also call. A variable, such as HF_HUB_DISABLE_XET, isn't a key.
_PREFIXED = re.compile(
    r"(?i)(?<![a-z0-9])(?!(?-i:HF_[A-Z]+_[A-Z_]+\b))"
    r"(?:(?:sk|pk|rk|pa|xai|pplx|key|glpat)-|(?:hf|gsk|ghp|gho|jina|github_pat)_|AIza|AKIA|eyJ)"
    r"[\w.~+-]{12,}"
)
# A key that nearfar keys new has made: whole, and with other characters between its own. A model may be called nf-…
_OWN = re.compile(r"(?i)nf-[\w-]{43,}")
_OWN_DIVIDED = re.compile(r"(?i)nf-(?:[\w-][^\w-]*+){20,}")
_LETTER = re.compile(r"[^\W_]")
_MIN_LETTERS, _MIN_LENGTH, _MAX_PARTS = 6, 8, 6  # of a key: to find it divided, and into how many parts
_MIN_RANDOM = 20  # characters
_RANDOM_CHANGES = 0.3  # between lowercase, uppercase and digits, for each character; names of models have 0.2
_HEXADECIMAL = re.compile(r"(?i)[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class KeyMask:
    """Masks the server's own keys, and what looks like one. ``is_key`` returns whether a text is a key."""

    def __init__(self, api_key: str | None, is_key: Callable[[bytes], bool]) -> None:
        self._api_key = _divided(api_key) if api_key else None
        self._is_key = is_key

    def mask(self, text: str, length: int) -> str:
        """Return a path's first characters with its keys masked; one that the cut divides is masked, too."""
        if len(text) > _MAX_READ:
            text = text[:_MAX_READ].rpartition("/")[0] + f"/{_MASK}"
        for _ in range(_DECODED if "%" in text else 0):
            text = unquote(text)
        text = _NAMED.sub(rf"\1{_MASK}", _QUERY.sub(f"?{_MASK}", self._mask_known(text)))
        text = _OWN_DIVIDED.sub(_mask_random, _OWN.sub(_MASK, text))
        return _TOKEN.sub(_mask_token, text)[:length]

    def mask_known(self, text: str) -> str:
        """Return a text with the server's own keys masked, and those with a service's prefix. Hashes and UUIDs stay."""
        return _PREFIXED.sub(_MASK, _OWN.sub(_MASK, self._mask_known(text)))

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message and the traceback of a record, as a filter of ``logging``."""
        record.msg, record.args = self.mask_known(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = self.mask_known(logging.Formatter().formatException(record.exc_info))
        return True

    def _mask_known(self, text: str) -> str:
        """Mask ``api_key``, and tokens and runs of tokens that are a key."""
        if self._api_key:
            text = self._api_key.sub(_MASK, text)
        tokens = [*_TOKEN.finditer(text)]
        masked, end = "", 0
        for at, first in enumerate(tokens):
            if first.start() < end:
                continue
            for last in tokens[at : at + _MAX_PARTS]:
                run = text[first.start() : last.end()]
                if len(run) < _MIN_LENGTH:
                    continue
                if self._is_key(run.encode(errors="replace")) or self._is_key(_joined(run)):
                    masked += text[end : first.start()] + _MASK
                    end = last.end()
        return masked + text[end:]


def _divided(key: str) -> re.Pattern[str]:
    """Return the pattern of a key in any case, with other characters between its letters and digits."""
    letters = _LETTER.findall(key)
    return re.compile(r"(?i)" + (r"[\W_]*+".join(letters) if len(letters) >= _MIN_LETTERS else re.escape(key)))


def _joined(run: str) -> bytes:
    return "".join(_TOKEN.findall(run)).encode(errors="replace")


def _mask_random(found: re.Match[str]) -> str:
    return _MASK if _looks_random(found[0]) else found[0]


def _mask_token(found: re.Match[str]) -> str:
    token = found[0]
    if _HEXADECIMAL.search(token) or _looks_random(token):
        return _MASK
    return _PREFIXED.sub(_MASK, token)


def _looks_random(token: str) -> bool:
    """Return whether lowercase, uppercase and digits change as often as in a random text."""
    kinds = [0 if char.islower() else 1 if char.isupper() else 2 for char in token if char.isalnum()]
    changes = sum(1 for before, after in pairwise(kinds) if before != after)
    return len(kinds) >= _MIN_RANDOM and changes >= _RANDOM_CHANGES * len(kinds)
