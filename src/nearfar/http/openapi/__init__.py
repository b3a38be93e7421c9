"""The server's OpenAPI document, as JSON and as an HTML page.

Litestar can build such documents from handlers' signatures. It isn't used for that: here bodies are decoded by hand,
several dialects share paths, and errors differ by dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from nearfar.dialects.kit.base import Dialect
from nearfar.docs.html import POLICY
from nearfar.http.openapi.document import build_document
from nearfar.http.openapi.page import render_page


class Documentation:
    """The document of one server, built at its first use."""

    policy = POLICY

    def __init__(self, dialects: Sequence[Dialect], *, requires_key: bool) -> None:
        self._dialects = dialects
        self._requires_key = requires_key

    @cached_property
    def content(self) -> dict[str, Any]:
        """Return the document."""
        return build_document(self._dialects, requires_key=self._requires_key)

    def json(self) -> bytes:
        """Return the document as JSON."""
        return msgspec.json.encode(self.content)

    def page(self, base_url: str) -> str:
        """Return the document as HTML, with example calls to ``base_url``."""
        return render_page(self.content, base_url)
