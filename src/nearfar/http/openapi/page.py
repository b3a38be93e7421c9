"""The OpenAPI document → an HTML page: every operation by dialect, with its fields, its answers and a call to copy.

The page has no scripts and fetches nothing. It works offline, and its policy forbids everything but its own style.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element, tostring

from nearfar.docs.html import html_page

Json = Mapping[str, Any]
Part = Element | str

_MARKS = re.compile(r"(`[^`]+`|https://[\w./-]+\w)")
_LIMITS = (
    ("minimum", "maximum", ""),
    ("minItems", "maxItems", " items"),
    ("minLength", "maxLength", " characters"),
)


def render_page(document: Json, base_url: str) -> str:
    """Return the page, with example calls to ``base_url``."""
    info = document["info"]
    body = _element(
        "main",
        _element("h1", f"{info['title']} {info['version']}"),
        *_paragraphs(info["description"]),
        _element("p", "OpenAPI 3.1: ", _element("a", "openapi.json", href="openapi.json")),
        _element("p", "How to configure and run the server: ", _element("a", "manual", href="docs/manual")),
        *(part for tag in document["tags"] for part in _section(tag, document, base_url.rstrip("/"))),
    )
    return html_page(info["title"], tostring(body, encoding="unicode", method="html"))


def _section(tag: Json, document: Json, base_url: str) -> Iterator[Element]:
    """Yield one dialect's part of the page."""
    operations = [
        _OperationHtml(document, path, method, operation, base_url).element()
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"] and method != "head"
    ]
    if operations:
        yield _element("h2", tag["name"], id=tag["name"])
        yield from _paragraphs(tag["description"])
        yield from operations


class _OperationHtml:
    """One operation of the document as HTML."""

    def __init__(self, document: Json, path: str, method: str, operation: Json, base_url: str) -> None:
        self._document = document
        self._path = path
        self._method = method.upper()
        self._operation = operation
        self._base_url = base_url

    def element(self) -> Element:
        operation = self._operation
        answer = operation["responses"]["200"]
        return _element(
            "details",
            _element("summary", _element("code", f"{self._method} {self._path}"), f" {operation['summary']}"),
            *_paragraphs(operation.get("description", "")),
            *self._call(),
            *(self._fields("Request", operation["requestBody"]["content"]) if "requestBody" in operation else ()),
            *(self._fields("Answer", answer["content"]) if "content" in answer else ()),
            *self._failures(),
        )

    def _call(self) -> Iterator[Element]:
        """Yield a call for each example."""
        body = self._operation.get("requestBody", {"content": {}})["content"].get("application/json", {})
        path = self._path
        for parameter in self._operation.get("parameters", ()):
            path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", "")))
        start = f"curl {shlex.quote(self._base_url + path)}"
        if {} not in self._operation.get("security", self._document["security"] or [{}]):
            start += ' -H "authorization: Bearer $NEARFAR_API_KEY"' if self._operation.get("security") != [] else ""
        for name, example in body.get("examples", {"": None}).items():
            if name not in {"", "example"}:
                yield _element("p", name)
            body_option = "" if example is None else f" \\\n  --json {shlex.quote(_json(example['value']))}"
            yield _element("pre", start + body_option)

    def _fields(self, title: str, content: Json) -> Iterator[Element]:
        yield _element("h4", title)
        for media_type, body in content.items():
            schema = body["schema"]
            alternatives = schema.get("anyOf", [schema]) if len(self._operation["tags"]) > 1 else [schema]
            for alternative in alternatives:
                yield from self._shape(alternative, media_type)
            if title == "Answer":
                yield from (_element("pre", _json(example["value"])) for example in body.get("examples", {}).values())

    def _shape(self, schema: Json, media_type: str) -> Iterator[Element]:
        """Yield an object's fields as a table, anything else as a line."""
        if "allOf" in schema:  # the second part only decides between dialects
            schema = schema["allOf"][0]
        target = self._resolve(schema)
        if "properties" not in target:
            yield _element("p", _element("code", media_type), f" {self._kind(schema)}")
            return
        yield from _paragraphs(target.get("description", ""))
        required = {*target.get("required", ()), *schema.get("required", ())}
        rows = [
            _element(
                "tr",
                _element("td", _element("code", name)),
                _element("td", self._kind(schema.get("properties", {}).get(name, field))),
                _element("td", "required" if name in required else ""),
            )
            for name, field in target["properties"].items()
        ]
        yield _element("table", *rows)

    def _failures(self) -> Iterator[Element]:
        failures = {status: failure for status, failure in self._operation["responses"].items() if status != "200"}
        if failures:
            yield _element("h4", "Errors")
            rows = [
                _element(
                    "tr", _element("td", _element("code", status)), _element("td", *_marked(failure["description"]))
                )
                for status, failure in failures.items()
            ]
            yield _element("table", *rows)

    def _resolve(self, schema: Json) -> Json:
        if "$ref" not in schema:
            return schema
        found: Json = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found

    def _kind(self, schema: Json, depth: int = 0) -> str:
        """Return a short description of the values that a schema accepts."""
        if "enum" in schema or "const" in schema:
            return ", ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
        if "anyOf" in schema:
            kinds = [self._kind(each, depth) for each in schema["anyOf"]]
            return " or ".join(dict.fromkeys(kinds))
        if "$ref" in schema:
            target = self._resolve(schema)
            fields = ", ".join(target.get("properties", ()))
            return f"{{{fields}}}" if depth < 2 else "object"  # noqa: PLR2004 — deeper nesting is unreadable
        if schema.get("type") == "array":
            return f"list of {self._kind(schema.get('items', {}), depth + 1)}{_bounds(schema)}"
        return f"{schema.get('type', 'anything')}{_bounds(schema)}"


def _bounds(schema: Json) -> str:
    """Return a short description of a schema's limits."""
    for least, most, unit in _LIMITS:
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            return f", {low} to {high}{unit}"
        if low == 1 and high is None and unit:
            return ", not empty"
        if low is not None or high is not None:
            return f", at least {low}{unit}" if high is None else f", at most {high}{unit}"
    return ""


def _element(tag: str, *parts: Part, **attributes: str) -> Element:
    """Build an element of text and other elements. ``tostring`` escapes all text."""
    element = Element(tag, attributes)
    for part in parts:
        if isinstance(part, Element):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + part
        else:
            element.text = (element.text or "") + part
    return element


def _paragraphs(text: str) -> Iterator[Element]:
    return (_element("p", *_marked(part)) for part in text.split("\n\n") if part)


def _marked(text: str) -> Iterator[Part]:
    """Convert the only markup in descriptions, `code` and URLs, to elements."""
    for part in _MARKS.split(text):
        if part.startswith("`"):
            yield _element("code", part.strip("`"))
        elif part.startswith("https://"):
            yield _element("a", part, href=part, rel="noreferrer")
        else:
            yield part


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
