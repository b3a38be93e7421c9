"""vLLM's texts as objects with ``text`` or ``content``, for queries, documents and the sides of pairs."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.dialects.kit.route_docs import NOT_BLANK


class ContentPart(Struct, kw_only=True):
    """A part of a multimodal text or document; only text is supported."""

    type: str = "text"
    text: str | None = None


class Content(Struct, kw_only=True):
    """A text or document as an object with ``text``, or ``content``, which is a string or parts."""

    text: str | None = None
    content: str | list[ContentPart] | None = None


def _object(required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these fields, one of them required."""
    return {"type": "object", "required": [required], "properties": properties}


_PART = _object("text", text=NOT_BLANK, type={"const": "text"})
_WITH_PARTS = _object("content", content={"type": "array", "minItems": 1, "items": _PART})
_WITH_TEXT = _object("text", text=NOT_BLANK, content={"type": ["string", "null"]})
_WITH_CONTENT = _object("content", content=NOT_BLANK, text={"type": "null"})
TEXT: dict[str, Any] = {"anyOf": [NOT_BLANK, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}
_TEXT_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "items": TEXT}
DOCUMENTS: dict[str, Any] = {"anyOf": [_TEXT_LIST, _WITH_PARTS, _WITH_TEXT, _WITH_CONTENT]}


def texts_of(items: str | list[str | Content] | Content, field: str) -> tuple[str, ...]:
    """Return a text for each item, or for each part of a single object. Raises InputError for what is no text."""
    if isinstance(items, list):
        return tuple(text_of(item, f"{field}[{index}]") for index, item in enumerate(items))
    if isinstance(items, Content) and isinstance(items.content, list):
        return tuple(_join([part], f"{field}.content[{index}]") for index, part in enumerate(items.content))
    return (text_of(items, field),)


def text_of(content: str | Content, field: str) -> str:
    """Return the text of one item, the lines of its parts. Raises InputError if it has none, or something else."""
    if isinstance(content, str):
        return content
    if isinstance(content.content, list):
        return _join(content.content, f"{field}.content")
    text = content.content if content.text is None else content.text
    if text is None:
        raise InputError(f"{field} must be a string, or an object with text or content", field)
    return text


def _join(parts: list[ContentPart], field: str) -> str:
    texts = [part.text for part in parts if part.type == "text" and part.text is not None]
    if len(texts) < len(parts):
        raise InputError(f"{field}: the models here read text only", field)
    return "\n".join(texts)
