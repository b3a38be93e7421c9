"""What fuzz tests send: JSON of every kind, and valid examples with something in them changed."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

FUZZ = settings.get_profile("fuzz")
IS_SHORT = FUZZ.derandomize  # without --fuzz
_MAX_CPU_S = 1.0

NAMES = ("model", "input", "inputs", "texts", "query", "documents", "top_n", "truncate", "dimensions", "text", "id")
EDGE_CASES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 1e-320),
    *("", " ", "\x00", "\ud7ff", "\U0001f600", "a" * 5000, "../../etc/passwd", "null", "0", "1e999", "\r\nx: y"),
    *([], {}, [[]], [{}], {"": ""}, [None], [[[[[]]]]], [0] * 3000, ["a"] * 3000),
)
SCALARS = st.one_of(
    st.sampled_from(EDGE_CASES), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=40)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=10)), inner, max_size=4),
    ),
    max_leaves=8,
)
# JSON that json.dumps doesn't write, and bytes that only look like JSON.
MALFORMED = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 100_000, b"[NaN]", b"[1e999]", b'"\\ud800"', b"\xef\xbb\xbf{}", b"{}x"]
    ),
    st.integers(1, 6000).map(lambda depth: b'{"input":' + b"[" * depth + b"]" * depth + b"}"),
)
_TOKENS = (*(bytes([byte]) for byte in b'[]{}"\\-,\0\xff'), b"\\u", b"\\ud800", b"null", b"1e999", b"NaN")


@contextmanager
def limited_cpu() -> Iterator[None]:
    """Assert that the block takes less than a second of this process's time, whatever other processes do."""
    began = time.process_time()
    yield
    assert time.process_time() - began < _MAX_CPU_S


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of a value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from paths(part, (*path, key))


def part_at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a value with another part at this path."""
    if not path:
        return new
    copy: Any = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def mutated(draw: st.DrawFn, examples: list[Any]) -> Any:
    """Draw an example with up to three parts changed, and perhaps a field added."""
    value = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([*paths(value)]))
        value = replaced(value, path, draw(VALUES))
    if isinstance(value, dict) and draw(st.booleans()):
        value = {**value, draw(st.one_of(st.sampled_from(NAMES), st.text(max_size=10))): draw(VALUES)}
    return value


@st.composite
def mutated_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw the bytes with some replaced, inserted or removed."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = start + draw(st.integers(0, 8))
        whole = whole[:start] + draw(st.binary(max_size=8)) + whole[end:]
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole


def bodies(examples: list[Any]) -> st.SearchStrategy[bytes]:
    """Return bodies of which half are nearly valid."""
    valid = (mutated(examples) if examples else VALUES).map(to_json)
    broken = st.sampled_from([to_json(example) for example in examples or [{}]]).flatmap(mutated_bytes)
    return st.one_of(valid, valid, broken, VALUES.map(to_json), MALFORMED)


# The same by brute force: many more inputs than Hypothesis can draw in the time.


def mutate(rng: random.Random, examples: list[Any]) -> bytes:
    """Change up to three parts of an example, to an edge case or another part of it; corrupt half of the results."""
    value = rng.choice(examples)
    for _ in range(rng.randrange(4)):
        known = [*paths(value)]
        new = part_at(value, rng.choice(known)) if rng.random() < 0.3 else rng.choice(EDGE_CASES)
        value = replaced(value, rng.choice(known), new)
    return corrupt(rng, to_json(value)) if rng.random() < 0.5 else to_json(value)


def corrupt(rng: random.Random, whole: bytes) -> bytes:
    """Replace, remove, repeat or insert a few bytes."""
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(whole) + 1)
        end = min(start + rng.choice((0, 1, 4, 40)), len(whole))
        new = rng.choice((rng.randbytes(rng.randrange(4)), rng.choice(_TOKENS), whole[start:end] * 2, b""))
        whole = whole[:start] + new + whole[end:]
    return whole
