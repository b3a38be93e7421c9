"""Content encodings and charsets: bytes as they were sent → UTF-8."""

from __future__ import annotations

import codecs
import re
import zlib

from nearfar.core.errors import BodyTooLarge, EncodingNotSupported, MalformedBody

_INFLATED = {"gzip", "x-gzip", "deflate"}
_GZIP_START, _MAX_MEMBERS = b"\x1f\x8b", 64  # each further member of a gzip body copies the rest of it
# The longer mark first: UTF-32's begins with UTF-16's.
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BOM_STARTS = {b"\xef", b"\xff", b"\xfe", b"\x00"}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE | re.ASCII)
# Those that Python decodes in linear time; it has others, such as punycode.
_KNOWN_CHARSETS = re.compile("utf|iso|latin|l1|cp|ibm|win|koi|mac|gb|big5|euc|shift|s_?jis|ms|ks|tis|hz")


def inflate(body: bytes, encodings: str, limit: int) -> bytes:
    """Undo the content encodings, the last one first. Inflates no more than ``limit`` bytes."""
    for encoding in reversed(encodings.lower().replace(" ", "").split(",")):
        if encoding in {"", "identity"}:
            continue
        if encoding not in _INFLATED:
            raise EncodingNotSupported(f"content-encoding {encoding[:40]!r} isn't supported; send gzip or deflate")
        try:
            body = _inflate_members(body, encoding, limit)
        except zlib.error as error:
            raise MalformedBody(f"the body is not {encoding}, which its content-encoding names") from error
    return body


def _inflate_members(body: bytes, encoding: str, limit: int) -> bytes:
    """Inflate deflate, or gzip of one or several members. Raises zlib.error, MalformedBody, BodyTooLarge."""
    # Some clients send deflate without the header of zlib, which always begins with 8 in its first half byte.
    is_raw = encoding == "deflate" and body[:1] and body[0] & 0x0F != zlib.DEFLATED
    inflated = b""
    for _ in range(_MAX_MEMBERS):
        inflating = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS | 32)
        inflated += inflating.decompress(body, limit + 1 - len(inflated))
        if len(inflated) > limit:
            raise BodyTooLarge(f"the inflated body is over {limit} bytes, the most this server reads")
        if body and not inflating.eof:
            raise MalformedBody(f"the {encoding} body ends too early")
        body = inflating.unused_data
        if not body.startswith(_GZIP_START):
            return inflated
    raise MalformedBody(f"the {encoding} body has over {_MAX_MEMBERS} members")


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Convert the body from the charset that its content type or its byte order mark names; without the mark."""
    if mark := next((mark for mark in _BOMS if body.startswith(mark)), None):
        charset = _BOMS[mark]
    else:
        named = _CHARSET.search(content_type)
        charset = named[1].lower() if named else "utf-8"
    if charset in {"utf-8", "utf8", "us-ascii", "ascii"}:  # decoding the JSON checks it
        return body
    if not _KNOWN_CHARSETS.match(charset):
        raise EncodingNotSupported(f"charset {charset[:40]!r} isn't supported; send UTF-8")
    try:
        return body.decode(charset).encode()
    except LookupError as error:
        raise EncodingNotSupported(f"charset {charset[:40]!r} isn't supported; send UTF-8") from error
    except UnicodeError as error:
        raise MalformedBody(f"the body is not {charset}, which its content-type names") from error
