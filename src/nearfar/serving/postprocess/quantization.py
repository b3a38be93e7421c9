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

EmbedDtype = Literal["float32", "float16", "bfloat16"]
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


def convert_floats(array: FloatArray, dtype: EmbedDtype, *, is_big_endian: bool = False) -> npt.NDArray[Any]:
    """Round float32 to another type, with its bytes in this order; bfloat16, which numpy lacks, as its bits.

    Raises InputError for numbers that the type can't represent.
    """
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array).view(np.uint32)
        converted: npt.NDArray[Any] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest even
    elif dtype == "float16" and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise InputError("embed_dtype: this model's numbers are too large for float16; use float32 or bfloat16")
    else:
        converted = array.astype(dtype)
    return converted.astype(converted.dtype.newbyteorder(">" if is_big_endian else "<"))
