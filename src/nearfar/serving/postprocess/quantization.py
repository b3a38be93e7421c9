"""Quantization of float vectors to bytes and bits, as in Cohere's API. Pure functions.

Bytes cover the range from -R to R. R is fixed for a model and a length, and never computed from a request's vectors:
the vectors of two requests could not be compared otherwise.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nearfar.core.errors import InputError
from nearfar.core.types import FloatArray

EmbedDtype = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
Quantized = Literal["int8", "uint8", "binary", "ubinary"]

# The components of a unit vector of D dimensions have a root mean square of 1 / sqrt(D); R is a multiple of that. Of 2
# to 8, 4 keeps most of the ten nearest among 5,000 passages with the built-in model (docs/performance.md has the
# table); models with a few large components may need more. Cohere's R of 0.1482 for 384 dimensions is 2.9.
_RANGE_IN_RMS = 4.0
_STEPS = 255


def default_range(dim: int) -> float:
    """Return R for unit vectors of so many dimensions, rounded because it is published."""
    return round(_RANGE_IN_RMS / math.sqrt(dim), 6)


def scale_range(int8_range: float, dim: int, dimensions: int) -> float:
    """Scale R to unit vectors that were cut from ``dim`` to ``dimensions``: their components are larger."""
    return int8_range * math.sqrt(dim / dimensions)


def quantize(vectors: FloatArray, kind: Quantized, int8_range: float | None) -> npt.NDArray[Any]:
    """Quantize (B, D) float32 to (B, D) int8 or uint8, or to (B, ceil(D / 8)) bytes of bits, the first one highest.

    A bit is set if the component is positive. ``binary`` is ``ubinary`` minus 128, not its bits read as signed. The
    last byte is padded with zeros, which changes no Hamming distance. Raises InputError for bytes without a range.
    """
    if kind in {"ubinary", "binary"}:
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if int8_range is None:
        raise InputError(f"no {kind} of vectors that aren't of unit length, unless the server's int8_range is set")
    # In float64, so that -R and R become exactly 0 and 255. Fractions of a step are cut off, not rounded.
    steps = (vectors.astype(np.float64) + int8_range) / (2 * int8_range) * _STEPS
    if kind == "uint8":
        return np.clip(np.floor(steps), 0, _STEPS).astype(np.uint8)
    return np.clip(np.trunc(steps - 128), -128, 127).astype(np.int8)


def _to_fp8(array: FloatArray, mantissa: int) -> npt.NDArray[np.uint8]:
    """Round to eight bits, to nearest even: a sign, an exponent, and ``mantissa`` bits.

    Raises InputError for numbers out of the range. With 3 bits it is e4m3fn, which has no infinity and only one NaN;
    with 2 bits e5m2.
    """
    codes = np.arange(0x7F if mantissa == 3 else 0x7C)  # noqa: PLR2004 — e4m3; the finite numbers, ascending
    exponents, fractions = codes >> mantissa, (codes & ((1 << mantissa) - 1)) / (1 << mantissa)
    bias = (1 << (6 - mantissa)) - 1
    values = np.where(exponents > 0, 1 + fractions, fractions * 2) * 2.0 ** (exponents - bias)
    size = np.abs(array).astype(np.float64)
    if size.max(initial=0) > values[-1]:
        raise InputError("embed_dtype: this model's numbers are too large for this type; use float32 or bfloat16")
    above = np.searchsorted(values, size)
    below = np.maximum(above - 1, 0)
    gap = (values[above] - size) - (size - values[below])
    nearest = np.where((gap > 0) | ((gap == 0) & (below % 2 == 0)), below, above)
    found: npt.NDArray[np.uint8] = (nearest | (np.signbit(array) << 7)).astype(np.uint8)
    return found


def convert_floats(array: FloatArray, dtype: EmbedDtype, *, is_big_endian: bool = False) -> npt.NDArray[Any]:
    """Round float32 to another type, with its bytes in this order; types that numpy lacks, as their bits.

    Raises InputError for numbers that the type can't represent.
    """
    if dtype in {"fp8_e4m3", "fp8_e5m2"}:
        return _to_fp8(array, 3 if dtype == "fp8_e4m3" else 2)
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array).view(np.uint32)
        converted: npt.NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest even
    elif dtype == "float16" and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise InputError("embed_dtype: this model's numbers are too large for float16; use float32 or bfloat16")
    else:
        converted = array.astype(dtype)
    return converted.astype(converted.dtype.newbyteorder(">" if is_big_endian else "<"))
