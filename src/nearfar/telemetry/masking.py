"""Masks keys in what a client has chosen, such as a path, before it is logged."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import unquote

_MASK = "***"
_DECODED = 3  # times that a path may be percent-encoded
# A query that was encoded into the path, and values that are called a key.
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_NAMED = re.compile(
    r"(?i)((?<![a-z])(?:bearer|basic|api[-_]?key|key|(?:access[-_]?)?token|secret|password)[\s=:/,]+)[^\s=:/,&;]+"
)
_TOKEN = re.compile(r"[^\s/&=:;,@\"']+")
# Prefixes of keys: nearfar's own, and those of services that clients also call.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|pa|xai|pplx|key|glpat)-|(?:hf|gsk|ghp|gho|jina|github_pat)_|AIza|AKIA|eyJ)[\w.~+-]{12,}"
)
_OWN = re.compile(r"nf-[\w-]+")
_MIN_RANDOM = 20  # characters
_RANDOM_CHANGES = 0.3  # between lowercase, uppercase and digits, for each character; names of models have 0.2
_HEXADECIMAL = re.compile(r"(?i)[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class KeyMask:
    """Masks the server's own keys, and what looks like one. ``is_key`` returns whether a text is a key."""

    def __init__(self, api_key: str | None, is_key: Callable[[bytes], bool]) -> None:
        self._api_key = api_key
        self._is_key = is_key

    def mask(self, text: str, length: int) -> str:
        """Return the text's first characters with its keys masked; one that the cut divides is masked, too."""
        for _ in range(_DECODED if "%" in text else 0):
            text = unquote(text)
        if self._api_key:
            text = text.replace(self._api_key, _MASK)
        text = _NAMED.sub(rf"\1{_MASK}", _QUERY.sub(f"?{_MASK}", text))
        return _TOKEN.sub(self._mask_token, text)[:length]

    def _mask_token(self, found: re.Match[str]) -> str:
        token = found[0]
        if _HEXADECIMAL.search(token) or _looks_random(token) or self._is_key(token.encode()):
            return _MASK
        return _PREFIXED.sub(_MASK, _OWN.sub(_MASK, token))


def _looks_random(token: str) -> bool:
    """Return whether lowercase, uppercase and digits change as often as in a random text."""
    kinds = [0 if char.islower() else 1 if char.isupper() else 2 for char in token if char.isalnum()]
    changes = sum(1 for before, after in pairwise(kinds) if before != after)
    return len(kinds) >= _MIN_RANDOM and changes >= _RANDOM_CHANGES * len(kinds)
