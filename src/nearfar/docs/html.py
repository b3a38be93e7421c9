"""The manual's pages as HTML, for the page for browsers and for browsers without scripts.

Each is self-contained: it runs no script and loads nothing, so it works offline and under the strictest policy.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from nearfar.docs import PAGES, read_page

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 3rem; border-bottom: 1px solid #8886 }
code, pre { font: .875rem/1.45 ui-monospace, monospace }
pre { background: #8882; padding: .75rem; border-radius: .25rem; user-select: all }
pre { white-space: pre-wrap; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884 }
nav a { margin-right: 1rem }
""".strip()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The Content-Security-Policy to send with every page: nothing is allowed but the page's own style.
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def manual_index(root: str) -> str:
    """Return the list of pages as HTML. ``root`` is the URL path that the server is mounted at, such as ``/``."""
    rows = [
        f'<tr><td><a href="{_url(root, name)}">{name}</a></td><td>{about}</td></tr>' for name, about in PAGES.items()
    ]
    body = f"{_navigation(root)}<main><h1>Manual</h1><table>{''.join(rows)}</table></main>"
    return _html_page("nearfar: manual", body)


def manual_page(name: str, root: str) -> str:
    """Return one of PAGES as HTML. ``root`` as in manual_index."""
    return _html_page(f"nearfar: {name}", f"{_navigation(root)}<main>{_render(name, root)}</main>")


@cache
def _render(name: str, root: str) -> str:
    """Convert the page's Markdown. Headings get GitHub's anchors; links to other pages lead to their URLs."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(read_page(name))
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", re.sub(r"[^\w\- ]", "", following.content.lower()).replace(" ", "-"))
    for link in (child for token in tokens for child in token.children or () if child.type == "link_open"):
        _rewrite(link, root)
    html: str = markdown.renderer.render(tokens, markdown.options, {})
    return html


def _rewrite(link: Token, root: str) -> None:
    file, _, anchor = str(link.attrs["href"]).partition("#")
    if (name := file.removesuffix(".md")) in PAGES:
        link.attrSet("href", f"{_url(root, name)}{'#' * bool(anchor)}{anchor}")
    elif file:
        link.attrSet("rel", "noreferrer")


def _navigation(root: str) -> str:
    urls = {"API reference": f"{escape(root)}docs", "manual": _url(root), **{name: _url(root, name) for name in PAGES}}
    links = (f'<a href="{url}">{text}</a>' for text, url in urls.items())
    return f"<nav>{' '.join(links)}</nav>\n"


def _url(root: str, name: str = "") -> str:
    return f"{escape(root)}docs/manual{'/' * bool(name)}{name}"


def _html_page(title: str, body: str) -> str:
    """Return a whole HTML document; ``body`` is HTML, ``title`` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
