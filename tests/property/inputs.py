"""What fuzz tests send: JSON of every kind, and json_schema examples with something in them changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW = 25  # of each kind, in `make test`
NAMES = ("model", "input", "inputs", "texts", "query", "documents", "top_n", "truncate", "dimensions", "text", "id")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 1e-320),
    *("", " ", "\x00", "\ud7ff", "\U0001f600", "a" * 5000, "../../etc/passwd", "null", "0", "1e999", "\r\nx: y"),
    *([], {}, [[]], [{}], {"": ""}, [None], [[[[[]]]]], [0] * 3000, ["a"] * 3000),
)
SCALARS = st.one_of(
    st.sampled_from(ODD), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=40)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=10)), inner, max_size=4),
    ),
    max_leaves=8,
)
# JSON that json.dumps doesn't write, and what only looks like it.
RAW = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 100_000, b"[NaN]", b"[1e999]", b'"\\ud800"', b"\xef\xbb\xbf{}", b"{}x"]
    ),
    st.integers(1, 6000).map(lambda depth: b'{"input":' + b"[" * depth + b"]" * depth + b"}"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List where in a value something can be changed."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for at, part in inner:
        yield from places(part, (*path, at))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Copy a value with another at one place."""
    if not path:
        return new
    copy: Any = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@st.composite
def near(draw: st.DrawFn, examples: list[Any]) -> Any:
    """Take an example, and change up to three things in it; or add a field."""
    value = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([*places(value)]))
        value = changed(value, path, draw(VALUES))
    if isinstance(value, dict) and draw(st.booleans()):
        value = {**value, draw(st.one_of(st.sampled_from(NAMES), st.text(max_size=10))): draw(VALUES)}
    return value


@st.composite
def bytes_near(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut bytes short, put some in, or turn some over."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        end = at + draw(st.integers(0, 8))
        whole = whole[:at] + draw(st.binary(max_size=8)) + whole[end:]
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


def written(value: Any) -> bytes:
    """Write JSON; what isn't UTF-8 is left to RAW."""
    return json.dumps(value).encode()


def bodies(examples: list[Any]) -> st.SearchStrategy[bytes]:
    """Bodies of which some are nearly right."""
    told = [written(example) for example in examples]
    broken = st.sampled_from(told).flatmap(bytes_near) if told else RAW
    right = near(examples) if examples else VALUES
    return st.one_of(right.map(written), right.map(written), broken, VALUES.map(written), RAW)
