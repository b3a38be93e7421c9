"""A document of Cohere's rerank → the text that the model reads, and the document in the reply."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import yaml

from nearfar.core.errors import EmptyInput, InputError
from nearfar.dialects.kit.route_docs import NotEmpty, json_schema

Document = NotEmpty | Annotated[dict[str, Any], json_schema(minProperties=1)]
TextOf = Callable[[int, Document, Sequence[str] | None], str]

_DUMPER = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper  # libyaml is about ten times as fast
_WIDTH = 2**31 - 1  # libyaml's greatest: lines are never folded
# Each value takes about 5 µs, and each level indents every line by two more characters.
_MAX_VALUES = 10_000
_MAX_LEVELS = 20
_ESCAPED = re.compile(r"\\U(00(?:0[1-9A-F]|10)[0-9A-F]{4})")
_PRIVATE_USE = range(0xE000, 0xF900)


def text_v1(index: int, document: Document, rank_fields: Sequence[str] | None) -> str:
    """Return the string, the object's ``rank_fields`` in their order as YAML, or else its ``text``.

    An empty string is a text: vLLM, llama.cpp and Jina score it, and callers of theirs have the same path. Raises
    InputError, or EmptyInput for what has no text.
    """
    if isinstance(document, dict) and rank_fields:
        return _not_empty(
            index, _as_yaml(index, {field: document[field] for field in rank_fields if field in document})
        )
    text = document.get("text") if isinstance(document, dict) else document
    return "" if text == "" else _not_empty(index, text)


def text_v2(index: int, document: Document, rank_fields: Sequence[str] | None) -> str:
    """Return what version 1 would, or all of an object without a ``text`` as YAML.

    Version 2 takes strings only, and its documentation wants objects turned into YAML. Its clients pass objects on as
    they are. Raises as ``text_v1`` does.
    """
    if isinstance(document, dict) and not rank_fields and document.get("text") is None:
        return _not_empty(index, _as_yaml(index, document))
    return _not_empty(index, text_v1(index, document, rank_fields))


def as_object(document: Document) -> dict[str, Any]:
    """Return the document, a string as an object with a ``text``."""
    return document if isinstance(document, dict) else {"text": document}


def with_text(document: Document, text: str) -> dict[str, Any]:
    """Return the document as an object with a ``text``, if only the text that was read: LiteLLM needs one."""
    return {**document, "text": document.get("text") or text} if isinstance(document, dict) else {"text": text}


def _not_empty(index: int, text: object) -> str:
    if text is not None and not isinstance(text, str):
        raise InputError(f"the text of the document at index {index} must be a string")
    if not text:
        raise EmptyInput(f"document at index {index} cannot be empty")
    return text


def _as_yaml(index: int, document: dict[str, Any]) -> str:
    """Return the fields that aren't null as YAML, in the form that Cohere's documentation recommends.

    Returns "" where there are none. Raises InputError for a document that is nested too deeply or has too many values.
    """
    fields = {field: value for field, value in document.items() if value is not None}
    if not fields:
        return ""
    _check_size(index, fields)
    text = _dump(fields)
    beyond = {chr(int(code, 16)) for code in _ESCAPED.findall(text)}
    return (_dump_unescaped(fields, beyond, set(text)) if beyond else text).removesuffix("\n")


def _check_size(index: int, document: dict[str, Any]) -> None:
    count, values = 0, [document]
    for _ in range(_MAX_LEVELS + 1):
        values = [part for value in values for part in _parts(value)]
        if not values:
            return
        count += len(values)
        if count > _MAX_VALUES:
            raise InputError(f"the document at index {index} has more than {_MAX_VALUES} values")
    raise InputError(f"the document at index {index} is nested too deeply: at most {_MAX_LEVELS} levels are allowed")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _dump(document: dict[str, Any]) -> str:
    text: str = yaml.dump(
        document,
        Dumper=_DUMPER,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_WIDTH,
    )
    return text


def _dump_unescaped(document: dict[str, Any], beyond: set[str], used: set[str]) -> str:
    """Return the YAML with the characters ``beyond`` U+FFFF in it, such as emoji, which libyaml always escapes.

    Characters for private use that the document doesn't have take their places while it is dumped.
    """
    unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
    stand_ins = {ord(char): stand_in for char, stand_in in zip(beyond, unused, strict=False)}

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return value.translate(stand_ins)
        if isinstance(value, dict):
            return {replace(key): replace(part) for key, part in value.items()}
        return [replace(part) for part in value] if isinstance(value, list) else value

    return _dump(replace(document)).translate({ord(stand_in): code for code, stand_in in stand_ins.items()})
