"""Decodes JSON bodies, and repairs halves of surrogate pairs."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from nearfar.core.errors import MalformedBody

_T = TypeVar("_T")


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
        if (repaired := _replace_lone_surrogates(body)) not in {None, body}:
            return decode_json(repaired, decoder)
        cut = "it ends too early, or has a broken \\u escape" if body else "it is empty"
        raise MalformedBody(cut if "truncated" in str(error) else str(error)) from error
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error


def _replace_lone_surrogates(body: bytes) -> bytes | None:
    """Return the JSON with U+FFFD for each lone surrogate, as Go reads it; None without escapes of any, or no JSON."""
    if b"\\ud" not in body.lower():
        return None
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
