"""What the server tells of its own routes: an OpenAPI document, and the same as a page.

Litestar makes such documents from handlers' signatures; here bodies are decoded by hand, paths are shared by several
dialects, and errors differ by dialect, so that nearly all of it would have to be said to Litestar as well.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.http.openapi.document import document
from nearfar.http.openapi.page import POLICY, page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.dialects.kit.base import Dialect


class Documentation:
    """The document of one server. It is built when it is first asked for, and kept."""

    policy = POLICY

    def __init__(self, dialects: Sequence[Dialect], *, asks_for_key: bool) -> None:
        self._dialects = dialects
        self._asks_for_key = asks_for_key

    @cached_property
    def content(self) -> dict[str, Any]:
        """Give the document."""
        return document(self._dialects, asks_for_key=self._asks_for_key)

    def json(self) -> bytes:
        """Give it as JSON."""
        return msgspec.json.encode(self.content)

    def page(self, base_url: str) -> str:
        """Give it as HTML; the calls that it shows go to ``base_url``."""
        return page(self.content, base_url)
