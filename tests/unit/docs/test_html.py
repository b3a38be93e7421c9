"""The manual under ``/docs/manual`` and in ``nearfar docs``: every page, every link, no script."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from conftest import calling, running

from nearfar import Settings
from nearfar.cli.main import main
from nearfar.docs import PAGES

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.anyio
URLS = ["/docs/manual", *(f"/docs/manual/{name}" for name in PAGES)]


class Page(HTMLParser):
    """Collects a page's elements, links and anchors, and every URL that a browser would load by itself."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str | None] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.anchors |= {value or "" for name, value in attrs if name == "id"}
        self.loaded += [value for name, value in attrs if name in {"src", "srcset", "data"} or name.startswith("on")]


def test_every_page_is_listed() -> None:
    found = {file.name.removesuffix(".md") for file in files("nearfar.docs").iterdir() if file.name.endswith(".md")}

    assert {*PAGES} == found


async def test_every_page_is_shown_without_scripts_or_external_files(faked: httpx.AsyncClient) -> None:
    offenders = []
    for url in URLS:
        answer = await faked.get(url)
        page = Page(answer)
        safe = "default-src 'none'; style-src 'sha256-" in answer.headers["content-security-policy"]
        if answer.status_code != 200 or not safe or page.loaded or page.tags & {"script", "link", "iframe", "img"}:
            offenders.append(url)
        elif "h1" not in page.tags or re.search(
            r"^(#|\|)", re.sub(r"(?s)<pre>.*?</pre>", "", answer.text), re.MULTILINE
        ):
            offenders.append(f"{url} is not rendered")

    assert [] == offenders


async def test_every_link_between_pages_leads_somewhere(faked: httpx.AsyncClient) -> None:
    pages = {url: Page(await faked.get(url)) for url in URLS}

    offenders = [
        f"{url}: {link}"
        for url, page in pages.items()
        for link in page.links
        if link != "/docs" and (link.startswith(("/", "#")) or link.endswith(".md"))
        for target, _, anchor in [link.partition("#")]
        if (found := pages.get(f"/{target.lstrip('/')}" if target else url)) is None
        or (anchor and anchor not in found.anchors)
    ]

    assert [] == offenders


async def test_the_manual_needs_no_key_and_an_unknown_page_is_a_404() -> None:
    async with running(Settings(engine="fake", api_key="sk-1")) as app, calling(app) as client:
        shown = await client.get("/docs/manual/security/")
        missing = await client.get("/docs/manual/nowhere")

    assert 200 == shown.status_code
    assert 404 == missing.status_code
    assert {"error": "PathNotFound", "message": "no such path: GET /docs/manual/nowhere"} == missing.json()


def test_the_command_lists_the_pages_and_prints_one() -> None:
    listed = CliRunner().invoke(main, ["docs"]).output
    printed = CliRunner().invoke(main, ["docs", "operations"]).output

    assert [*PAGES] == [line.split()[0] for line in listed.splitlines()]
    assert "# Operations" == printed.splitlines()[0]


def test_an_unknown_page_is_refused_with_the_list_of_pages() -> None:
    result = CliRunner().invoke(main, ["docs", "operation"])

    assert 2 == result.exit_code
    assert "operations" in result.output
