"""HTTP/2 frames, written by hand: clients of attacks send what no library would."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_MAX_SHORT = 126  # lengths that fit in HPACK's first byte
_SEVEN_BITS = 128  # of each further byte


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def opening(window: int = 65_535) -> bytes:
    """Return the bytes that begin a connection; ``window`` is how much of each answer the server may send."""
    return PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))


def head(method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    """Return a header block (RFC 7541), each header a literal that isn't indexed."""
    pseudo = {":method": method, ":scheme": "http", ":path": path, ":authority": "localhost"}
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in (pseudo | (headers or {})).items())


def request(stream: int, path: str, body: bytes) -> bytes:
    """Return the frames of a POST, of at most 16 kB."""
    block = head("POST", path, {"content-length": str(len(body))})
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body)


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) <= _MAX_SHORT:
        return bytes((len(raw),)) + raw
    rest, length = len(raw) - _MAX_SHORT - 1, bytes((_MAX_SHORT + 1,))
    while rest >= _SEVEN_BITS:
        length += bytes((rest % _SEVEN_BITS | _SEVEN_BITS,))
        rest //= _SEVEN_BITS
    return length + bytes((rest,)) + raw
