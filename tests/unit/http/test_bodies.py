"""Bodies may be compressed, have a byte order mark, or another charset that their content type names."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import pytest
from conftest import calling, running

from nearfar import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

pytestmark = pytest.mark.anyio

TEXT = {
    "model": "all-minilm",
    "input": "Moët",
    "inputs": "Moët",
    "query": "Moët",
    "documents": ["Moët"],
    "texts": ["Moët"],
}
PATHS = {
    "/v1/embeddings": ("model", "input"),
    "/api/embed": ("model", "input"),
    "/embed": ("inputs",),
    "/rerank": ("query", "documents"),
    "/v1/rerank": ("query", "documents"),
    "/v2/embed": ("model", "texts"),
}


def deflate_raw(body: bytes) -> bytes:
    compressing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressing.compress(body) + compressing.flush()


# content-encoding → how a body is compressed so
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    " deflate": deflate_raw,
    "identity": bytes,
    "": bytes,
    "gzip ": lambda body: gzip.compress(body[:9]) + gzip.compress(b"") + gzip.compress(body[9:]),
    "deflate, gzip": lambda body: gzip.compress(zlib.compress(body)),
}
# content type → the encoding of a body
CHARSETS = {
    "application/json; charset=ISO-8859-1": "latin-1",
    'application/json; charset="iso-8859-15"': "latin-1",
    "application/json;CHARSET=windows-1252": "cp1252",
    "application/json; charset=utf-16le": "utf-16-le",
    "application/json; charset=utf-16": "utf-16",
    "application/json; charset=UTF-8": "utf-8",
    "application/json; charset=utf8": "utf-8-sig",
    "application/json": "utf-8-sig",
    "text/plain": "utf-16",
    "": "utf-32",
}


def body_of(path: str) -> str:
    return json.dumps({name: TEXT[name] for name in PATHS[path]}, ensure_ascii=False)


async def test_a_compressed_body_gives_the_same_answer_on_every_route(faked: httpx.AsyncClient) -> None:
    offenders = []
    for path in PATHS:
        expected = (await faked.post(path, content=body_of(path).encode())).status_code
        for encoding, compress in ENCODINGS.items():
            content = compress(body_of(path).encode())
            answer = await faked.post(path, content=content, headers={"content-encoding": encoding})
            if answer.status_code != expected:
                offenders.append((path, encoding, answer.text))

    assert [] == offenders


async def test_a_body_in_another_charset_has_the_same_vector(faked: httpx.AsyncClient) -> None:
    text = body_of("/v1/embeddings")
    expected = (await faked.post("/v1/embeddings", content=text.encode())).json()["data"]

    found = {
        content_type: (
            await faked.post("/v1/embeddings", content=text.encode(charset), headers={"content-type": content_type})
        ).json()
        for content_type, charset in CHARSETS.items()
    }

    assert [] == [(name, answer) for name, answer in found.items() if answer.get("data") != expected]


@pytest.mark.parametrize(
    ("status", "words", "headers", "body"),
    [
        (415, "'zstd' isn't supported; send gzip or deflate", {"content-encoding": "zstd"}, b"("),
        (415, "'br' isn't supported", {"content-encoding": "gzip, br"}, b"("),
        (400, "not gzip, which its content-encoding names", {"content-encoding": "gzip"}, b"{}"),
        (400, "gzip body ends too early", {"content-encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-6]),
        (400, "not deflate", {"content-encoding": "deflate"}, b"\xff\xff\xff"),
        (415, "charset 'klingon' isn't supported", {"content-type": "application/json; charset=klingon"}, b"{}"),
        (415, "charset 'punycode' isn't supported", {"content-type": "application/json; charset=punycode"}, b"{}"),
        (400, "not shift_jis, which its content-type", {"content-type": "a/b; charset=shift_jis"}, b'"\xff\xff"'),
    ],
)
async def test_what_can_not_be_decoded_is_named(
    status: int, words: str, headers: dict[str, str], body: bytes, faked: httpx.AsyncClient
) -> None:
    answers = {path: await faked.post(path, content=body, headers=headers) for path in PATHS}

    assert status == answers["/v1/embeddings"].status_code
    assert [] == [(path, answer.text) for path, answer in answers.items() if words not in answer.text]


async def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    """Ten megabytes of zeros, and the same compressed twice."""
    once = gzip.compress(bytes(10_000_000))
    async with running(Settings(engine="fake", max_body_bytes=100_000)) as app, calling(app) as client:
        for encoding, body in (
            ("gzip", once),
            ("gzip, gzip", gzip.compress(once)),
            ("deflate", zlib.compress(bytes(10**7))),
        ):
            answer = await client.post("/v1/embeddings", content=body, headers={"content-encoding": encoding})
            assert (413, True) == (answer.status_code, "over 100000 bytes" in answer.text)
