"""What may be embedded or ranked in Jina's protocol: strings, and objects that have a text.

Images, sounds and pages are objects without one, and so are refused.
"""

from __future__ import annotations

from msgspec import Struct

from nearfar.core import errors


class JinaText(Struct):
    """A text as an object."""

    text: str


Document = str | JinaText


def text_of(said: Document) -> str:
    """Take the text."""
    return said if isinstance(said, str) else said.text


def named(model: str | None) -> str:
    """Give the model's name. Raises ModelRequired."""
    if not model:
        raise errors.ModelRequired("Field required: model", "model")
    return model
