"""Compare a response with a case's ``expect``: exactly, or only the shape that any server of the protocol has."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KINDS: dict[str, tuple[type, ...]] = {"any": (object,), "string": (str,), "int": (int,), "number": (int, float)}
_BYTES = {"int8": (-128, 127), "uint8": (0, 255)}


def cases_of(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a file's cases with their names. A single case has the file's name."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return [(file.stem, found)] if isinstance(found, dict) else [(case["name"], case) for case in found]


def expanded(value: Any) -> Any:
    """Expand the short forms of large inputs, ``$repeat`` and ``$list``."""
    if isinstance(value, dict) and "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    if isinstance(value, dict) and "$list" in value:
        item, times = value["$list"]
        return [expanded(item)] * times
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return [expanded(item) for item in value] if isinstance(value, list) else value


def differences(expect: Mapping[str, Any], status: int, headers: Mapping[str, str], body: Any) -> list[str]:
    """Return the differences between a response and the expected one; empty if it is equal."""
    found = [] if status == expect["status"] else [f"status {status}, expected {expect['status']}"]
    for name, part in expect.get("headers", {}).items():
        if part not in headers.get(name, ""):
            found.append(f"header {name} is {headers.get(name)!r}, without {part!r}")
    found += [f"{path} is present" for path in expect.get("absent", []) if _has(body, path.split("."))]
    return found + (_compare(expanded(expect["json"]), body, "$") if "json" in expect else [])


def shape_differences(expect: Mapping[str, Any], status: int, body: Any) -> list[str]:
    """Return the differences in shape: the status, missing keys, and values of another type.

    Values that depend on the model may differ (numbers, messages, lengths of vectors). Additional keys are allowed.
    """
    found = [] if status == expect["status"] else [f"status {status}, expected {expect['status']}"]
    found += [f"{path} is present" for path in expect.get("absent", []) if _has(body, path.split("."))]
    return found + (_compare_shape(expanded(expect["json"]), body, "$") if "json" in expect else [])


def _compare(expected: Any, found: Any, at: str) -> list[str]:
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return [f"{at} is {_shown(found)}, expected an object"]
        lines = [f"{at}.{key} is missing" for key in expected if key not in found]
        lines += [f"{at}.{key} is unexpected" for key in found if key not in expected]
        both = [key for key in expected if key in found]
        return lines + [line for key in both for line in _compare(expected[key], found[key], f"{at}.{key}")]
    if isinstance(expected, list):
        if not isinstance(found, list) or len(expected) != len(found):
            return [f"{at} is {_shown(found)}, expected a list of {len(expected)}"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for index, (one, other) in pairs for line in _compare(one, other, f"{at}[{index}]")]
    if _is_placeholder(expected):
        matches = _matches(expected[1:-1], found)
    else:
        matches = expected == found and type(expected) is type(found)
    return [] if matches else [f"{at} is {_shown(found)}, expected {_shown(expected)}"]


def _compare_shape(expected: Any, found: Any, at: str) -> list[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = [f"{at}.{key} is missing" for key in expected if key not in found]
        both = [key for key in expected if key in found]
        return lines + [line for key in both for line in _compare_shape(expected[key], found[key], f"{at}.{key}")]
    if isinstance(expected, list) and isinstance(found, list):
        pairs = enumerate(zip(expected, found, strict=False))  # the length depends on the model
        return [line for index, (one, other) in pairs for line in _compare_shape(one, other, f"{at}[{index}]")]
    kinds = _shape_of(expected)
    return [] if isinstance(found, kinds) or expected is None else [f"{at} is {_shown(found)}, expected {kinds}"]


def _shape_of(expected: Any) -> tuple[type, ...]:
    if _is_placeholder(expected):
        word = expected[1:-1].partition(" ")[0]
        if word in {"vector", *_BYTES}:
            return (list,)
        return _KINDS.get(word, (int, float) if word == "score" else (str,))
    return (int, float) if isinstance(expected, int | float) and not isinstance(expected, bool) else (type(expected),)


def _is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("<") and value.endswith(">")


def _matches(kind: str, found: Any) -> bool:
    """Return whether a value matches a placeholder."""
    word, _, argument = kind.partition(" ")
    if word == "has":
        return isinstance(found, str) and argument in found
    if word == "uuid":
        return isinstance(found, str) and _is_uuid(found)
    if word == "score":
        return isinstance(found, float) and 0 <= found <= 1
    if word in _BYTES:
        low, high = _BYTES[word]
        return _are_numbers(found, int(argument), int) and all(low <= item <= high for item in found)
    if word in {"vector", "base64"}:
        vector: Any = found if word == "vector" else _floats(found)
        return (
            _are_numbers(vector, int(argument), float) and abs(math.sqrt(math.fsum(x * x for x in vector)) - 1) < 1e-5
        )
    return isinstance(found, _KINDS[word]) and (word == "any" or not isinstance(found, bool))


def _are_numbers(found: Any, count: int, kind: type) -> bool:
    kinds = {kind, int} if kind is float else {kind}  # a whole float may be encoded without a decimal point
    return isinstance(found, list) and len(found) == count and {type(item) for item in found} <= kinds


def _floats(text: Any) -> list[float] | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error):
        return None
    return list(struct.unpack(f"<{len(raw) // 4}f", raw)) if len(raw) % 4 == 0 else None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _has(value: Any, path: list[str]) -> bool:
    """Return whether the path exists; a null exists."""
    if not path:
        return True
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    return isinstance(value, dict) and path[0] in value and _has(value[path[0]], path[1:])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
