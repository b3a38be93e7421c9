"""The page for browsers: what is served, to which clients, and under which policy."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest
from conftest import calling, running

import nearfar
from nearfar import Settings

pytestmark = pytest.mark.anyio

SITE = Path(nearfar.__file__).parent / "http" / "pages" / "site"
FILES = sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*") if file.is_file())
OWN = [name for name in FILES if not name.startswith("vendor/")]
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
_LINK = re.compile(
    r"""(?:href|src)="(ui/[^"]+)"|(?:from|import\() ?"(\.[^"]+)"|(?:URL|importScripts)\("(\.\./[^"]+)"|"(ui/[^"]+)\""""
)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/plain, */*", ""])
async def test_only_browsers_get_the_page_at_the_root(accept: str) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        page = await client.get("/", headers=BROWSER)
        other = await client.get("/", headers={"accept": accept})
        head = await client.head("/", headers=BROWSER)

    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert "<title>nearfar</title>" in page.text
    assert "nearfar is running" == other.json()["message"]
    assert (200, b"", page.headers["content-length"]) == (
        head.status_code,
        head.content,
        head.headers["content-length"],
    )


async def test_every_file_is_served_under_a_policy_without_inline_code_or_other_origins() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for name in [*OWN, *FILES]:
            answer = await client.get("/ui" if name == "index.html" else f"/ui/{name}")

            assert 200 == answer.status_code, name
            assert (SITE / name).read_bytes() == answer.content
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; ")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "nosniff" == answer.headers["x-content-type-options"]


async def test_a_browser_loads_an_unchanged_file_once() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        first = await client.get("/ui/app.js")
        again = await client.get("/ui/app.js", headers={"if-none-match": first.headers["etag"]})
        changed = await client.get("/ui/app.js", headers={"if-none-match": '"0"'})

    assert (304, b"") == (again.status_code, again.content)
    assert first.content == changed.content


@pytest.mark.parametrize("path", ["/ui/index.html", "/ui/none.js", "/ui/../__init__.py", "/ui/%2e%2e/__init__.py"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        answer = await client.get(path)

    assert 404 == answer.status_code
    assert "PathNotFound" == answer.json()["error"]


async def test_the_page_needs_no_key_and_what_it_shows_does() -> None:
    async with running(Settings(engine="fake", api_key="nf-1")) as app, calling(app) as client:
        page = await client.get("/", headers=BROWSER)
        info = await client.get("/info")

    assert 200 == page.status_code
    assert 401 == info.status_code


@pytest.mark.parametrize("path", ["/models/a", "/models/a/", "/"])
async def test_below_a_prefix_links_start_there(path: str) -> None:
    async with running(Settings(engine="fake", root_path="/models/a")) as app, calling(app) as client:
        page = await client.get(path, headers=BROWSER)
        script = await client.get("/models/a/ui/app.js")

    assert '<base href="/models/a/">' in page.text
    assert 200 == script.status_code


@pytest.mark.parametrize("root", ["", "/models/a"])
async def test_the_docs_are_in_the_page(root: str) -> None:
    async with running(Settings(engine="fake", api_key="nf-1", root_path=root)) as app, calling(app) as client:
        answers = [await client.get(f"{root}{path}") for path in ("/docs", "/redoc")]

    assert [(302, f"{root}/#/docs")] * 2 == [(answer.status_code, answer.headers["location"]) for answer in answers]


def test_every_link_of_the_page_leads_to_one_of_its_files() -> None:
    links = 0
    for name in OWN:
        text = (SITE / name).read_text(encoding="utf-8")
        for groups in _LINK.findall(text):
            [link] = filter(None, groups)
            target = link.removeprefix("ui/") if link.startswith("ui/") else PurePosixPath(name).parent / link
            assert (SITE / target).is_file(), f"{name}: {link}"
            links += 1

    assert links > 20


def test_the_page_is_small_and_names_no_other_origin() -> None:
    """Addresses that a user copies come from the server's own; those of namespaces are never fetched."""
    loaded = [name for name in FILES if "LICENSE" not in name]
    assert sum((SITE / name).stat().st_size for name in loaded) < 250_000
    for name in OWN:
        text = (SITE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), name
        assert not re.search(
            r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|sessionStorage|document\.cookie", text
        ), name


async def test_the_last_requests_are_listed_without_their_texts() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        empty = (await client.get("/admin/requests")).json()
        await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "a secret"})
        await client.post("/v1/embeddings", json={"model": "none", "input": "a secret"})
        await client.get("/info")
        for _ in range(2):
            answer = await client.get("/admin/requests")

    assert {"requests": []} == empty
    failed, done = answer.json()["requests"]
    assert ("POST", "/v1/embeddings", 404, "ModelNotFound") == tuple(
        failed[name] for name in ("method", "path", "status", "error")
    )
    assert (200, 1) == (done["status"], done["rows"])
    assert done["time"] <= failed["time"]
    assert "secret" not in answer.text


async def test_no_more_than_200_requests_are_kept() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for at in range(203):
            await client.post("/none", json={}, headers={"x-request-id": f"id-{at}"})
        found = (await client.get("/admin/requests")).json()["requests"]

    assert [f"id-{at}" for at in reversed(range(3, 203))] == [one["request_id"] for one in found]


async def test_the_models_on_this_disk_are_listed() -> None:
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        [builtin, *_] = (await client.get("/admin/models")).json()["models"]

    assert ("sentence-transformers/all-MiniLM-L6-v2", "built-in, verified", True) == tuple(
        builtin[name] for name in ("name", "about", "can_be_served")
    )
    assert 90_000_000 < builtin["bytes"] < 100_000_000
