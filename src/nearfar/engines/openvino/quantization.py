"""Quantizes the weights of linear layers to 8 bits, with a scale and a zero point for each output channel.

NNCF does the same and more, but reports its use over the network and has twelve dependencies.
"""

from __future__ import annotations

import numpy as np
import openvino
from openvino import Node, Type
from openvino import opset13 as ops

from nearfar.core.types import FloatArray

# The attribute of an operation that every precision computes in float32, as set here and as read from a file.
MARK_FLOAT32, _MARKED = "precise_0", ("precise_0", "DisablePrecisionConversion_0")
_MAX_LEVEL = 255  # of an unsigned byte
_MIN_WEIGHTS = 4096  # in a smaller matrix there is nothing to save


def quantize_weights(model: openvino.Model) -> None:
    """Quantize the weights of every linear layer in place, except those that are marked to stay in float32.

    OpenVINO recognizes the sequence Convert, Subtract, Multiply before a MatMul, keeps the weights as bytes, and on
    CPUs that multiply bytes quantizes the layer's input as well.
    """
    for layer in model.get_ordered_ops():
        weights = linear_weights(layer)
        if weights is not None and not any(mark in layer.get_rt_info() for mark in _MARKED):
            inner = 1 if layer.get_attributes()["transpose_b"] else 0  # (out, in), or (in, out)
            layer.input(1).replace_source_output(_quantize(weights, inner))
    model.validate_nodes_and_infer_types()


def linear_weights(layer: Node) -> FloatArray | None:
    """Return a linear layer's matrix; None for any other operation."""
    if layer.get_type_name() != "MatMul":
        return None
    source = layer.input_value(1).get_node()
    if source.get_type_name() != "Constant" or source.get_element_type() != Type.f32:
        return None
    matrix: FloatArray = source.data
    return matrix if matrix.ndim == 2 and matrix.size >= _MIN_WEIGHTS else None  # noqa: PLR2004 — a matrix


def _quantize(weights: FloatArray, inner: int) -> openvino.Output:
    """Build the bytes and their dequantization; ``inner`` is the axis that the MatMul sums over."""
    low = np.minimum(weights.min(axis=inner, keepdims=True), 0)
    scale = np.maximum(np.maximum(weights.max(axis=inner, keepdims=True), 0) - low, 1e-8) / _MAX_LEVEL
    zero = np.round(-low / scale)
    levels = np.clip(np.round(weights / scale) + zero, 0, _MAX_LEVEL).astype(np.uint8)
    shifted = ops.subtract(
        ops.convert(ops.constant(levels), "f32"), ops.convert(ops.constant(zero.astype(np.uint8)), "f32")
    )
    return ops.multiply(shifted, ops.constant(scale.astype(np.float32))).output(0)
