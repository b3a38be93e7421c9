"""The weights of linear layers → 8-bit integers, each output channel with a scale and a zero point of its own.

NNCF does the same and more, but reports its use over the network and brings twelve packages along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from openvino import Type
from openvino import opset13 as ops

if TYPE_CHECKING:
    import openvino
    from openvino import Node

    from nearfar.core.types import FloatArray

_LEVELS = 255  # of an unsigned byte
_SMALLEST = 4096  # weights; below that there is nothing to gain


def quantize_weights(model: openvino.Model) -> None:
    """Replace, in place, the weights of every linear layer.

    OpenVINO recognises the sequence Convert, Subtract, Multiply before a MatMul, keeps the bytes, and on processors
    that multiply bytes quantises the layer's input as well.
    """
    for layer in model.get_ordered_ops():
        weights = _weights(layer)
        if weights is not None:
            inner = 1 if layer.get_attributes()["transpose_b"] else 0  # (out, in), or (in, out)
            layer.input(1).replace_source_output(_dequantized(weights, inner))
    model.validate_nodes_and_infer_types()


def _weights(layer: Node) -> FloatArray | None:
    """Give the matrix that a linear layer multiplies by; None for any other operation."""
    if layer.get_type_name() != "MatMul":
        return None
    source = layer.input_value(1).get_node()
    if source.get_type_name() != "Constant" or source.get_element_type() != Type.f32:
        return None
    matrix: FloatArray = source.data
    return matrix if matrix.ndim == 2 and matrix.size >= _SMALLEST else None  # noqa: PLR2004 — a matrix


def _dequantized(weights: FloatArray, inner: int) -> openvino.Output:
    """Build the bytes and what turns them back; ``inner`` is the axis that is summed over."""
    low = np.minimum(weights.min(axis=inner, keepdims=True), 0)
    scale = np.maximum(np.maximum(weights.max(axis=inner, keepdims=True), 0) - low, 1e-8) / _LEVELS
    zero = np.round(-low / scale)
    levels = np.clip(np.round(weights / scale) + zero, 0, _LEVELS).astype(np.uint8)
    moved = ops.subtract(
        ops.convert(ops.constant(levels), "f32"), ops.convert(ops.constant(zero.astype(np.uint8)), "f32")
    )
    return ops.multiply(moved, ops.constant(scale.astype(np.float32))).output(0)
