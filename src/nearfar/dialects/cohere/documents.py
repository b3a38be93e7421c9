"""A document of Cohere's rerank → the text that is read, and what is given back of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.core.errors import EmptyInput, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.dialects.cohere.bodies import Document


def text_v1(index: int, document: Document, rank_fields: Sequence[str] | None) -> str:
    """Take the string, the object's ``rank_fields`` in their order as lines of YAML, or else its ``text``.

    Raises InputError, or EmptyInput for what has no text.
    """
    if isinstance(document, dict) and rank_fields:
        return _not_empty(index, _as_yaml({field: document[field] for field in rank_fields if field in document}))
    return _not_empty(index, document.get("text") if isinstance(document, dict) else document)


def text_v2(index: int, document: Document, rank_fields: Sequence[str] | None) -> str:
    """Take what version 1 would, or all of an object without a ``text`` as lines of YAML.

    Version 2 takes strings only, and its documentation wants objects turned into YAML. Its clients pass objects on as
    they are. Raises as ``text_v1`` does.
    """
    if isinstance(document, dict) and not rank_fields and document.get("text") is None:
        return _not_empty(index, _as_yaml(document))
    return text_v1(index, document, rank_fields)


def as_object(document: Document) -> dict[str, Any]:
    """Give the document back, a string as an object with a ``text``."""
    return document if isinstance(document, dict) else {"text": document}


def with_text(document: Document, text: str) -> dict[str, Any]:
    """Give the document back as an object that has a ``text``, if only what was read: LiteLLM refuses one without."""
    return {**document, "text": document.get("text") or text} if isinstance(document, dict) else {"text": text}


def _not_empty(index: int, text: object) -> str:
    if text is not None and not isinstance(text, str):
        raise InputError(f"the text of the document at index {index} must be a string")
    if not text:
        raise EmptyInput(f"document at index {index} cannot be empty")
    return text


def _as_yaml(said: dict[str, Any]) -> str:
    """Write a line for each field that isn't null; JSON is a part of YAML."""
    return "\n".join(
        f"{field}: {value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for field, value in said.items()
        if value is not None
    )
