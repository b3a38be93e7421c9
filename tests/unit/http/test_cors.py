"""Local pages, apps and listed origins may read responses, and preflight requests are answered before they send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import calling, running

from nearfar import Settings
from nearfar.core.settings import load_settings
from nearfar.http.gate.cors import Origins

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio

LOCAL = (
    *(
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:80",
        "http://0.0.0.0:8080",
    ),
    *("http://app.localhost", "file://", "app://obsidian.md", "tauri://localhost", "vscode-webview://abc"),
    *("chrome-extension://abcdef", "moz-extension://abc", "capacitor://localhost"),
)
FOREIGN = (
    "https://evil.example",
    "http://localhost.evil.example",
    "http://6.6.6.6",
    "null",
    "HTTPS://evil.example",
    "",
)
# a pattern → origins that it allows, and others that it doesn't
PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "https://app.example.org/": (
        ("https://app.example.org",),
        ("http://app.example.org", "https://app.example.org:8443"),
    ),
    "https://*.example.org": (
        ("https://a.example.org", "https://a.b.example.org", "https://A.Example.org"),
        ("https://example.org", "https://aexample.org", "https://a.example.org.evil.test", "https://a.example.org:1"),
    ),
    "http://nas:*": (("http://nas", "http://nas:1", "http://nas:65535"), ("http://nasty", "http://nas:1@evil.test")),
    "http://192.168.1.*:*": (("http://192.168.1.7:3000", "http://192.168.1.7"), ("http://192.168.2.7",)),
    "https://*": (("https://any.example",), ("http://any.example", "https://any.example:8443")),
    "*://x.example:*": (("https://x.example:1", "http://x.example"), ("https://y.example",)),
    "null": (("null",), ("https://null.example",)),
    "*": (("https://any.example", "null"), ()),
}
PATHS = ("/v1/embeddings", "/api/embed", "/v1/models", "/api/tags", "/no-such-path", "/health/ready")


async def preflight(client: httpx.AsyncClient, path: str, origin: str, **headers: str) -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-a, content-type",
    }
    return await client.options(path, headers=asked | headers)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_allows_what_it_describes(pattern: str) -> None:
    allowed, others = PATTERNS[pattern]
    origins = Origins(load_settings({"cors_origins": [pattern]}, environ={}).cors_origins)

    assert [] == [origin for origin in (*allowed, *LOCAL) if not origins.is_allowed(origin)]
    assert [] == [origin for origin in others if origins.is_allowed(origin)]


async def test_local_pages_and_apps_are_allowed_by_default_on_every_path(faked: httpx.AsyncClient) -> None:
    offenders = []
    for path in PATHS:
        for origin in (*LOCAL, *FOREIGN):
            asked = await preflight(faked, path, origin)
            sent = await faked.get(path, headers={"origin": origin})
            allowed = [answer.headers.get("access-control-allow-origin") for answer in (asked, sent)]
            if allowed != [origin if origin in LOCAL else None] * 2:
                offenders.append((path, origin, allowed))

    assert [] == offenders


async def test_a_preflight_request_needs_no_key_and_names_what_was_asked() -> None:
    settings = Settings(engine="fake", api_key="a-key", cors_origins=("https://*.example.org",))
    async with running(settings) as app, calling(app) as client:
        asked = await preflight(client, "/v1/rerank", "https://a.example.org")
        private = await preflight(
            client, "/v1/rerank", "https://a.example.org", **{"access-control-request-private-network": "true"}
        )
        foreign = await preflight(client, "/v1/rerank", "https://b.example")
        refused = await client.post("/v1/rerank", headers={"origin": "https://a.example.org"}, json={})

    assert 204 == asked.status_code
    assert "x-a, content-type" == asked.headers["access-control-allow-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Origin" == asked.headers["vary"]
    assert "access-control-allow-private-network" not in asked.headers
    assert "true" == private.headers["access-control-allow-private-network"]
    assert 401 == foreign.status_code
    assert (401, "https://a.example.org") == (refused.status_code, refused.headers["access-control-allow-origin"])


async def test_local_files_and_apps_may_send(faked: httpx.AsyncClient) -> None:
    body = {"model": "all-minilm", "input": "hello"}

    found = {
        origin: (await faked.post("/api/embed", json=body, headers={"origin": origin})).status_code for origin in LOCAL
    }

    assert dict.fromkeys(LOCAL, 200) == found


async def test_get_routes_answer_head_without_a_body(faked: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/docs/manual", "/metrics", "/info", "/api/tags", "/openapi.json", "/health/live"):
        get, head = await faked.get(path), await faked.head(path)
        assert (200, 200, b"") == (get.status_code, head.status_code, head.content), path
        assert get.headers["content-type"] == head.headers["content-type"]
    assert 405 == (await faked.head("/v1/embeddings")).status_code
    assert 404 == (await faked.head("/no-such-path")).status_code
