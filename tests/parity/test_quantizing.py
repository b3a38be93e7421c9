"""Bytes and bits are what Cohere's own vectors show, by an R that no request can move."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sentence_transformers.util import quantize_embeddings

from nearfar.core.errors import InputError
from nearfar.core.jobs import EmbedJob
from nearfar.serving.pipeline.embedding import _int8_range
from nearfar.serving.postprocess.quantization import Quantized, default_range, quantize, scale_range

R = 0.2
FloatArray = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> FloatArray:
    """Make unit vectors, some with components far over R, and some of exactly 0."""
    made = np.random.default_rng(11).standard_normal((200, 96)) ** 3
    made[:, 5] = 0
    unit: FloatArray = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    assert (np.abs(unit) > R).any()
    return unit


def row(*values: float) -> FloatArray:
    return np.array([values], dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "int8", "uint8"),
    [
        (1.0, 127, 255),  # (1 + 1) / (2 / 255) = 255
        (-1.0, -128, 0),
        (0.0, 0, 127),  # 127.5 steps; less 128 is -0.5, which is cut to 0
        (0.5, 63, 191),  # 191.25
        (-0.5, -64, 63),  # 63.75; less 128 is -64.25
        (0.0079, 0, 128),  # 128.507
        (0.012, 1, 129),  # 129.03
        (-0.005, -1, 126),  # 126.86; less 128 is -1.14
        (7.0, 127, 255),
        (-7.0, -128, 0),
    ],
)
def test_bytes_are_those_computed_by_hand_for_a_range_of_one(value: float, int8: int, uint8: int) -> None:
    assert [[int8]] == quantize(row(value), "int8", 1.0).tolist()
    assert [[uint8]] == quantize(row(value), "uint8", 1.0).tolist()


def test_bits_are_packed_from_the_highest_and_zero_is_no_bit() -> None:
    components = row(0.1, -0.1, 0.0, 0.3, -0.2, -0.2, -0.2, 0.9)  # 1 0 0 1 0 0 0 1

    assert [[0b10010001]] == quantize(components, "ubinary", None).tolist()
    assert [[0b10010001 - 128]] == quantize(components, "binary", None).tolist()


def test_binary_is_less_128_and_not_the_same_bits_read_as_signed() -> None:
    assert [[-128, 127]] == quantize(row(*[-1.0] * 8, *[1.0] * 8), "binary", None).tolist()


def test_the_last_byte_is_filled_up_with_zeros() -> None:
    assert [[0b11111111, 0b11100000]] == quantize(row(*[1.0] * 11), "ubinary", None).tolist()


def test_filled_up_bits_change_no_hamming_distance(vectors: FloatArray) -> None:
    short = vectors[:, :13]
    bits = quantize(short, "ubinary", None)

    differing = np.bitwise_count(bits[:, None] ^ bits[None]).sum(axis=2)

    assert (((short > 0)[:, None] != (short > 0)[None]).sum(axis=2) == differing).all()


def rewritten(vectors: FloatArray, kind: Quantized) -> list[list[int]]:
    """Do the same number by number, in Python's own arithmetic and as the rule was first written down."""
    step = 2 * R / 255
    if kind == "int8":
        return [[max(-128, min(127, math.trunc((float(x) + R) / step - 128))) for x in each] for each in vectors]
    if kind == "uint8":
        return [[max(0, min(255, math.floor((float(x) + R) / step))) for x in each] for each in vectors]
    words = ["".join("1" if x > 0 else "0" for x in each) for each in vectors]
    less = 128 if kind == "binary" else 0
    return [[int(word[at : at + 8], 2) - less for at in range(0, len(word), 8)] for word in words]


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_every_kind_is_what_an_independent_rewrite_gives(kind: Quantized, vectors: FloatArray) -> None:
    found = quantize(vectors, kind, R)

    assert rewritten(vectors, kind) == found.tolist()
    assert {"int8": "int8", "uint8": "uint8", "binary": "int8", "ubinary": "uint8"}[kind] == found.dtype.name


@pytest.mark.parametrize("kind", ["uint8", "binary", "ubinary"])
def test_these_kinds_are_those_of_sentence_transformers_with_a_fixed_range(
    kind: Quantized, vectors: FloatArray
) -> None:
    ranges = np.array([[-R] * 96, [R] * 96], dtype=np.float32)

    theirs = quantize_embeddings(vectors, precision=kind, ranges=ranges)

    ours = quantize(vectors, kind, R).astype(int)
    # They compute in float32: a component on the edge of a step may fall to its other side.
    assert (np.abs(ours - theirs.astype(int)) <= (kind == "uint8")).all()
    assert (ours == theirs).mean() > 0.999


def test_int8_differs_from_sentence_transformers_by_the_cut_toward_zero_alone(vectors: FloatArray) -> None:
    """Cohere cuts toward 0 where they round down, so that negative components are one step higher."""
    ranges = np.array([[-R] * 96, [R] * 96], dtype=np.float32)

    theirs = quantize_embeddings(vectors, precision="int8", ranges=ranges).astype(int)

    ours = quantize(vectors, "int8", R).astype(int)
    inside = (theirs < 0) & (theirs > -128)
    assert {0, 1} >= {*(ours - theirs)[inside].tolist()}
    assert (ours - theirs)[inside].mean() > 0.99
    assert (ours == theirs)[theirs >= 0].mean() > 0.999


def test_a_vector_is_the_same_bytes_whatever_it_is_sent_with(vectors: FloatArray) -> None:
    together = quantize(vectors, "int8", R)

    assert quantize(vectors[7:8], "int8", R).tolist() == together[7:8].tolist()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_bytes_without_a_known_range_are_refused(kind: Quantized, vectors: FloatArray) -> None:
    with pytest.raises(InputError, match=f"no {kind} of vectors"):
        quantize(vectors, kind, None)


def test_the_default_range_is_four_times_a_component_s_root_mean_square() -> None:
    assert 0.204124 == default_range(384)
    assert 4 / math.sqrt(1024) == default_range(1024)


def test_shorter_unit_vectors_have_a_wider_range() -> None:
    assert 0.5 == scale_range(0.25, 1024, 256)
    assert 0.25 == scale_range(0.25, 1024, 1024)


@pytest.mark.parametrize(
    ("model_normalizes", "job_normalizes", "expected"),
    [(True, None, 0.5), (False, None, 0.25), (True, False, None), (False, True, 2 * default_range(1024))],
)
def test_only_unit_vectors_get_a_wider_range_when_shortened(
    model_normalizes: bool, job_normalizes: bool | None, expected: float | None
) -> None:
    model: Any = SimpleNamespace(
        recipe=SimpleNamespace(normalize=model_normalizes, dim=1024), info=SimpleNamespace(int8_range=0.25)
    )
    job = EmbedJob(model=None, inputs=("a",), dimensions=256, normalize=job_normalizes)
    is_unit = model_normalizes if job_normalizes is None else job_normalizes

    assert expected == _int8_range(model, job, is_unit=is_unit)
