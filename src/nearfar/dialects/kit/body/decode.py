"""Decodes JSON bodies, and repairs halves of surrogate pairs."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from nearfar.core.errors import MalformedBody

_T = TypeVar("_T")
# A pair, or one half of it. Between matches other threads run, so that a long body stops none of them.
_SURROGATES = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})",
)
_INVALID = re.compile("[\udc80-\udcff]")  # how Python keeps bytes that aren't UTF-8
_ESCAPE, _BACKSLASH, _REPLACEMENT = 6, ord("\\"), rb"\ufffd"


def decode_json(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode a body, or a part of one that was left undecoded.

    Half of a surrogate pair in an escape, which clients leave where they cut an emoji in two, is read as U+FFFD. Raises
    MalformedBody if the body isn't JSON, and msgspec.ValidationError for JSON of another shape.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        if (repaired := replace_lone_surrogates(body)) != body:
            return decode_json(repaired, decoder)
        cut = "it ends too early, or has a broken \\u escape" if body else "it is empty"
        raise MalformedBody(cut if "truncated" in str(error) else str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error


def replace_lone_surrogates(body: bytes) -> bytes:
    """Return the JSON with U+FFFD for each lone surrogate in an escape, as Go reads it."""
    return _SURROGATES.sub(_replace_lone, body)


def replace_invalid_bytes(body: bytes) -> bytes:
    """Return the body with U+FFFD for each byte that isn't UTF-8, as Go reads it."""
    return _INVALID.sub("\ufffd", body.decode(errors="surrogateescape")).encode()


def _replace_lone(found: re.Match[bytes]) -> bytes:
    start = end = found.start()
    while start and found.string[start - 1] == _BACKSLASH:
        start -= 1
    if (end - start) % 2:  # the first escape is text: its backslash is escaped
        return found[0][:_ESCAPE] + (_REPLACEMENT if found[1] else b"")
    return found[0] if found[1] else _REPLACEMENT
