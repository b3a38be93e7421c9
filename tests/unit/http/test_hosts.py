"""A server on loopback without a key answers this machine's programs and no foreign web page."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.dialects.kit.routing import installed_dialects

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

EVERYWHERE = "0.0.0.0"  # noqa: S104 — nothing binds here
BODY = {"model": "text-embedding-3-small", "input": "hello"}
LOCAL_HOSTS = (
    *("127.0.0.1:9000", "127.0.0.1", "localhost", "LOCALHOST:9000", "localhost.", "[::1]:9000", "nearfar.localhost"),
    *("host.docker.internal:9000", "mac.local:9000", "192.168.1.5:9000", f"{socket.gethostname()}:9000"),
)
FOREIGN_HOSTS = (
    *("evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.example", "localhostevil.example"),
    *("evil.example#localhost", "local", "xlocalhost", "127.0.0.1@evil.example", "", "a\xff"),
)


async def status_of(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return (await client.post("/v1/embeddings", json=BODY, headers=sent)).status_code


async def test_only_this_machines_names_and_addresses_are_answered(faked: httpx.AsyncClient) -> None:
    """DNS rebinding: a page's domain that resolves to 127.0.0.1 stays in the Host header."""
    expected = dict.fromkeys(LOCAL_HOSTS, 200) | dict.fromkeys(FOREIGN_HOSTS, 403)

    found = {
        host: (await faked.post("/v1/embeddings", json=BODY, headers=[(b"host", host.encode("latin-1"))])).status_code
        for host in expected
    }

    assert expected == found


@pytest.mark.parametrize(
    ("expected", "host", "settings"),
    [
        (200, "evil.example", Settings(engine="fake", host=EVERYWHERE, no_auth=True)),
        (401, "evil.example", Settings(engine="fake", api_key="a-key")),
        (401, "evil.example", Settings(engine="fake", api_key="a-key", host=EVERYWHERE)),
        (200, "evil.example", Settings(engine="fake", allowed_hosts=("*",))),
        (200, "Embed.Example:9000", Settings(engine="fake", allowed_hosts=("embed.example",))),
        (200, "a.b.example", Settings(engine="fake", allowed_hosts=("*.b.example",))),
        (403, "b.example", Settings(engine="fake", allowed_hosts=("*.b.example",))),
        (403, "ab.example", Settings(engine="fake", allowed_hosts=("*.b.example",))),
        (200, "127.0.0.1:9000", Settings(engine="fake", allowed_hosts=("embed.example",))),
        (403, "evil.example", Settings(engine="fake", host=EVERYWHERE, no_auth=True, allowed_hosts=("a.example",))),
        (403, "evil.example", Settings(engine="fake", host=EVERYWHERE, api_key="a-key", allowed_hosts=("a.example",))),
    ],
)
async def test_a_public_bind_or_a_key_allows_every_host_unless_some_are_listed(
    expected: int, host: str, settings: Settings
) -> None:
    async with running(settings) as app, calling(app) as client:
        assert expected == await status_of(client, {"host": host})


ORIGINS = {
    "https://evil.example": 403,
    "http://6.6.6.6": 403,
    "http://localhost.evil.example": 403,
    "null": 403,
    "": 403,
    "http://127.0.0.1:9000": 200,
    "http://localhost:3000": 200,
    "http://[::1]:3000": 200,
    "app://obsidian.md": 200,
    "chrome-extension://abcdef": 200,
    "https://app.example": 200,
    "https://app.example:8443": 403,
}


async def test_a_foreign_page_can_not_even_send() -> None:
    """It couldn't read the answer, but its request would run and could unload a model."""
    settings = Settings(engine="fake", cors_origins=("https://app.example",))
    headers = {"host": "127.0.0.1:9000", "content-type": "text/plain"}

    async with running(settings) as app, calling(app) as client:
        found = {origin: await status_of(client, {**headers, "origin": origin}) for origin in ORIGINS}

    assert ORIGINS == found


@pytest.mark.parametrize("path", [*sorted({route for d in installed_dialects() for route in d.prefixes}), "/nowhere"])
async def test_the_refusal_has_the_dialect_s_shape_and_names_the_setting(faked: httpx.AsyncClient, path: str) -> None:
    answer = await faked.post(path, headers={"host": "evil.example"})
    health = await faked.get("/health/live", headers={"host": "evil.example"})

    assert 403 == answer.status_code
    assert "'evil.example' is not a name of this server; add it to allowed_hosts" in answer.text
    assert 200 == health.status_code


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-lang",
    }


@pytest.mark.parametrize("origins", [(), ("https://app.example",), ("*",)])
@pytest.mark.parametrize("origin", ["https://app.example", "https://evil.example"])
async def test_only_listed_pages_may_read_answers(origins: tuple[str, ...], origin: str) -> None:
    settings = Settings(engine="fake", api_key="a-key", cors_origins=origins)
    may = bool({origin, "*"} & {*origins})

    async with running(settings) as app, calling(app) as client:
        asked = await client.options("/v1/embeddings", headers=preflight(origin))
        headers: dict[str, Any] = {"origin": origin, "authorization": "Bearer a-key"}
        sent = await client.post("/v1/embeddings", json=BODY, headers=headers)

    assert may == (asked.headers.get("access-control-allow-origin") in {origin, "*"})
    assert may == (sent.headers.get("access-control-allow-origin") in {origin, "*"})
    assert may == asked.is_success
    if may:
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        assert "x-request-id" in sent.headers["access-control-expose-headers"]
