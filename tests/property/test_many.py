"""Many more inputs than Hypothesis can make by itself: it gives the seeds, and each makes fifty, by brute force."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from answering import call, place, sample  # noqa: F401 — fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import FEW, ODD, changed, places
from test_files import RECIPE, read, said_by, sample_files
from test_requests import MISBEHAVES, POSTS, hold, shown

from nearfar.core.errors import CheckpointError
from nearfar.models.files.safetensors import tensor_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from test_requests import Call

A_SEED = 50  # inputs
MOST_S = 1.0  # of a processor, for one: the machine may be busy with others
_FUZZ = settings.get_profile("fuzz")
_GIVEN = _FUZZ.max_examples
# Each of the fifty has its own deadline.
MANY = settings(_FUZZ, deadline=None, max_examples=1 if _GIVEN == FEW else _GIVEN)
SEEDS = st.integers(0, 2**64 - 1)
_WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"null",
    b"1e999",
    b"-",
    b"NaN",
    b"\x00",
    b"\xff",
    b",",
]


def twisted(rng: random.Random, whole: bytes) -> bytes:
    """Turn over, take out, repeat or put in a few bytes."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(whole) + 1)
        end = min(at + rng.choice((0, 1, 4, 40)), len(whole))
        new = rng.choice((rng.randbytes(rng.randrange(4)), rng.choice(_WORDS), whole[at:end] * 2, b""))
        whole = whole[:at] + new + whole[end:]
    return whole


def altered(rng: random.Random, value: Any) -> Any:
    """Put something odd, or a part of the value itself, in up to three places of it."""
    for _ in range(rng.randrange(4)):
        where = [*places(value)]
        new = rng.choice(ODD)
        if rng.random() < 0.3:
            new = _part(value, rng.choice(where))
        value = changed(value, rng.choice(where), new)
    return value


def _part(value: Any, path: tuple[Any, ...]) -> Any:
    for at in path:
        value = value[at]
    return value


def made(rng: random.Random, told: list[Any]) -> bytes:
    value = altered(rng, rng.choice(told))
    whole = json.dumps(value).encode()
    return twisted(rng, whole) if rng.random() < 0.5 else whole


@pytest.mark.parametrize("path", POSTS)
@MANY
@given(seed=SEEDS)
def test_no_body_of_many_makes_a_route_fail(path: str, seed: int, call: Call) -> None:
    rng = random.Random(seed)  # noqa: S311 — to be made again
    told = shown(path) or [{"model": "nobody's"}]

    for _ in range(A_SEED):
        body = made(rng, told)
        if MISBEHAVES.search(body):
            continue
        began = time.process_time()
        answer = call("POST", path, body)
        took = time.process_time() - began
        assert took < MOST_S, (took, body[:500])
        hold(answer)


@pytest.mark.parametrize("name", [*RECIPE, "model.safetensors"])
@MANY
@given(seed=SEEDS)
def test_no_file_of_many_makes_the_reader_fail(name: str, seed: int, place: Path, sample: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 — to be made again
    folder = sample_files(place, sample)
    whole = (sample / name).read_bytes()
    is_json = name.endswith(".json")
    told = [msgspec.json.decode(whole)] if is_json else []

    for _ in range(A_SEED if is_json else 4):  # whole weights take long to copy
        content = made(rng, told) if is_json else whole[:8] + twisted(rng, whole[8:5000]) + whole[5000:]
        (folder / name).write_bytes(content)
        began = time.process_time()
        try:
            said = said_by(CheckpointError, lambda: read(folder, name) if is_json else tensor_shapes(folder / name))
        finally:
            (folder / name).write_bytes(whole)
        took = time.process_time() - began
        assert took < MOST_S, (took, content[:500])
        assert not said or str(folder) in said
