"""Float vectors → bytes and bits, as Cohere makes them. Pure: knows no model, no job and no protocol.

A range R is fixed per model and length, never taken from a request's own vectors: what two requests were given could
not be compared otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nearfar.core.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from nearfar.core.types import FloatArray

Quantized = Literal["int8", "uint8", "binary", "ubinary"]

# The components of a unit vector of D dimensions have a root mean square of 1 / sqrt(D); R is so many of those. Of 2 to
# 8, 4 keeps most of the ten nearest among 5,000 passages with the built-in model (docs/performance.md has the table);
# models with a few large components may want more. Cohere's R of 0.1482 for 384 dimensions is 2.9.
_TIMES_THE_USUAL_COMPONENT = 4.0
_STEPS = 255


def default_range(dim: int) -> float:
    """Give R for unit vectors of so many dimensions; rounded, as it is published and has to be the same everywhere."""
    return round(_TIMES_THE_USUAL_COMPONENT / math.sqrt(dim), 6)


def range_at(int8_range: float | None, dim: int, dimensions: int, *, unit: bool) -> float | None:
    """Give R for vectors cut from ``dim`` to ``dimensions``: unit vectors' components grow as they become fewer."""
    if int8_range is None or not unit:
        return int8_range
    return int8_range * math.sqrt(dim / dimensions)


def quantize(vectors: FloatArray, kind: Quantized, int8_range: float | None) -> npt.NDArray[Any]:
    """Turn (B, D) float32 into (B, D) int8 or uint8, or into (B, ceil(D / 8)) of bits, the first one highest.

    A bit is set where the component is above 0, and ``binary`` is ``ubinary`` less 128, not the same bits read as
    signed. The last byte is filled up with zeros, which changes no Hamming distance. Raises InputError for bytes where
    no range is known.
    """
    if kind in {"ubinary", "binary"}:
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if kind == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if int8_range is None:
        raise InputError(f"no {kind} of vectors that aren't of unit length, unless the server's int8_range is set")
    # In float64, and so that -R and R fall on 0 and 255 exactly; halves and thirds of steps are cut, not rounded.
    steps = (vectors.astype(np.float64) + int8_range) / (2 * int8_range) * _STEPS
    if kind == "uint8":
        return np.clip(np.floor(steps), 0, _STEPS).astype(np.uint8)
    return np.clip(np.trunc(steps - 128), -128, 127).astype(np.int8)
