"""The least of HTTP/1.1 that a client must read to know when an answer is complete. Bodies are skipped, not decoded."""

from __future__ import annotations

import re

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"
_UNREAD = -1
OK = 200


class Answer:
    """One answer as it arrives. Knows neither HEAD, nor 1xx, nor bodies that end with the connection."""

    __slots__ = ("_chunks", "_head", "_keep", "_left", "_parts", "status")

    def __init__(self, *, keep: bool) -> None:
        self.status = 0
        self._keep = keep
        self._head = b""
        self._left = _UNREAD  # bytes of the body to come, once the head is read
        self._parts: list[bytes] = []
        self._chunks: Chunks | None = None

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; true once the answer is complete. Raises ValueError for HTTP not known here."""
        if self.status == 0:
            head, found, data = (self._head + data).partition(_END_OF_HEAD)
            if not found:
                self._head = head
                return False
            self._read_head(head)
        if self._chunks is not None:
            return self._chunks.feed(data)
        self._left -= len(data)
        if self._keep:
            self._parts.append(data)
        return self._left <= 0

    def body(self) -> str:
        """Give the body, of a failure or of an answer that is kept."""
        return (self._chunks.body() if self._chunks else b"".join(self._parts)).decode()

    def _read_head(self, head: bytes) -> None:
        self.status = int(head[9:12])  # HTTP/1.1 200
        self._keep |= self.status != OK
        length = _LENGTH.search(head)
        if length:
            self._left = int(length[1])
        elif _CHUNKED.search(head):
            self._chunks = Chunks()
        else:
            raise ValueError(f"an answer with neither length nor chunks: {head.decode(errors='replace')}")


class Chunks:
    """A body in chunks. Holds it all: the servers measured here send none but by accident. Knows no trailers."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._at = 0  # where the next chunk's size is written
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; true once the last chunk, of size 0, is complete."""
        self._raw += data
        while (line := self._raw.find(b"\r\n", self._at)) >= 0:
            size = int(self._raw[self._at : line].partition(b";")[0], 16)
            start, end = line + 2, line + 2 + size
            if len(self._raw) < end + 2:
                return False
            if size == 0:
                return True
            self._parts.append(bytes(self._raw[start:end]))
            self._at = end + 2
        return False

    def body(self) -> bytes:
        """Give what the chunks hold."""
        return b"".join(self._parts)
