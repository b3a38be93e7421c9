"""A checkpoint's torch modules → an OpenVINO model with dynamic shapes: padded ids in, vectors or logits out.

OpenVINO's own ``convert_model`` reports each use over the network; the front end that it calls doesn't.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import torch
from openvino import PartialShape, Type
from openvino import opset13 as ops
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import FloatArray
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.padding import pad
from nearfar.engines.common.precision import flatten_outputs, stack
from nearfar.engines.openvino.compiled_model import HIDDEN_STATES
from nearfar.engines.openvino.quantization import MARK_FLOAT32
from nearfar.engines.transformer.heads import ModelWithHeads, classifier_modules
from nearfar.engines.transformer.length_dependence import depends_on_longest
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.tokenization.row import Row

_ATTENTION = "nearfar_converted"
_NORMALIZE = ".project/"  # the last operations are in float32 anyway
_HEADS = ("_heads",)  # the path of ModelWithHeads' own
_LONG = 640  # tokens
_HALF = (Type.bf16, Type.f16)


def convert(request: OpenRequest) -> tuple[openvino.Model, FloatArray, FloatArray]:
    """Convert the checkpoint in float32; return the model, and torch's outputs to compare it with.

    They are those for the probes, and for ``long_row``.

    Raises CheckpointError for files that torch can't load, EngineUnavailable for an architecture that can't be
    converted.
    """
    transformer: Any = load_transformer(request, torch.float32)
    if depends_on_longest(transformer, request.recipe.max_tokens):
        raise EngineUnavailable(
            f"{request.folder}: its rotary positions change with the longest text of a batch, which OpenVINO can't "
            "convert; use --engine torch"
        )
    model = ModelWithHeads(transformer, request.recipe)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every branch that it takes as constant
            # Before the attention changes, because transformers' own is the reference.
            exact = stack([_exact(model, row, request) for row in request.probes])
            exact_of_long = _exact(model, long_row(request), request)
            _mask_always(transformer)
            converted = _trace(_WithHiddenStates(model) if request.recipe.dim else model, _example(request))
            _mark_float32(converted, [*_HEADS, *(f"_transformer.{path}" for path in _classifier(request, transformer))])
            if request.recipe.dim:
                _hide_last_output(converted)
    except Exception as error:  # torch, transformers and openvino each raise their own
        raise EngineUnavailable(
            f"{request.folder}: OpenVINO can't convert {request.recipe.architecture} ({type(error).__name__}); "
            "use --engine torch"
        ) from error
    if any(port.get_element_type() in _HALF for op in converted.get_ops() for port in op.outputs()):
        raise EngineUnavailable(
            f"{request.folder}: {request.recipe.architecture} rounds to half precision on its way, which OpenVINO "
            "doesn't; use --engine torch"
        )
    return converted, exact, exact_of_long


def long_row(request: OpenRequest) -> Row:
    """Return a row that is longer than the probes: past the usual windows, and where half precision would show."""
    longest = max(request.probes, key=lambda row: len(row.ids))
    length = min(request.recipe.max_tokens, _LONG)
    repeats = -(-length // len(longest.ids))
    return Row((longest.ids * repeats)[:length], longest.type_ids and (longest.type_ids * repeats)[:length], length, 0)


def _mask_always(transformer: Any) -> None:
    """Make SDPA take a mask for every batch, so that tracing includes it."""
    if transformer.config._attn_implementation == "sdpa":  # noqa: SLF001 — has no public getter
        AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
        AttentionMaskInterface.register(_ATTENTION, _mask)
        transformer.set_attn_implementation(_ATTENTION)


class _WithHiddenStates(torch.nn.Module):
    """The checkpoint with one more output: the last hidden states."""

    def __init__(self, model: ModelWithHeads) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the heads' outputs and then the hidden states (B, T, H)."""
        hidden = self._model.hidden_states(input_ids, attention_mask)
        return (*self._model.apply_heads(hidden, attention_mask), hidden)


def _classifier(request: OpenRequest, transformer: Any) -> list[str]:
    return classifier_modules(transformer) if request.recipe.task == "score" else []


def _mark_float32(model: openvino.Model, paths: Sequence[str]) -> None:
    """Mark the operations of the modules at these paths, so that every precision computes them in float32.

    OpenVINO follows the mark in a model that was written to a file and read again.
    """
    prefixes = tuple(f"__module.{outer}{path}{end}" for outer in ("", "_model.") for path in paths for end in "./")
    for operation in model.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if not name.startswith(prefixes):
            continue
        operation.get_rt_info()[MARK_FLOAT32] = ""
        if kind == "Add":
            _fold_bias(operation)
        if kind == "Divide" and _NORMALIZE not in name:  # what OpenVINO replaces it by would lose the mark
            inverse = ops.power(operation.input_value(1), ops.constant(np.float32(-1)))
            inverse.get_rt_info()[MARK_FLOAT32] = ""
            _replace(operation, ops.multiply(operation.input_value(0), inverse))


def _fold_bias(add: openvino.Node) -> None:
    """Make a linear layer's bias one more column of its weights: fused by OpenVINO, the layer would lose its mark."""
    layer, bias = add.input_value(0).get_node(), add.input_value(1)
    if layer.get_type_name() != "MatMul" or not layer.get_attributes()["transpose_b"]:
        return
    inputs, weights = layer.input_value(0), layer.input_value(1)
    if any(source.get_node().get_type_name() != "Constant" for source in (weights, bias)):
        return
    columns = np.column_stack([weights.get_node().data, np.ravel(bias.get_node().data)])  # (L, H + 1)
    zero = ops.multiply(ops.reduce_sum(inputs, ops.constant([-1]), keep_dims=True), ops.constant(np.float32(0)))
    with_one = ops.concat([inputs, ops.add(zero, ops.constant(np.float32(1)))], axis=-1)  # (…, H + 1)
    _replace(add, ops.matmul(with_one, ops.constant(columns), transpose_a=False, transpose_b=True))
    for operation in (zero.input_value(0).get_node(), zero, with_one.input_value(1).get_node(), with_one):
        operation.get_rt_info()[MARK_FLOAT32] = ""


def _replace(old: openvino.Node, new: openvino.Node) -> None:
    new.get_rt_info()[MARK_FLOAT32] = ""
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))


def _hide_last_output(model: openvino.Model) -> None:
    """Remove the last output, but name its source: it is only computed for those that request it by name."""
    result = model.get_results()[-1]
    result.input_value(0).get_node().set_friendly_name(HIDDEN_STATES)
    model.remove_result(result)


def _exact(model: ModelWithHeads, row: Row, request: OpenRequest) -> FloatArray:
    padded = pad([row], request.recipe.pad_token_id or 0)
    arrays = {"input_ids": padded.ids, "attention_mask": padded.mask, "token_type_ids": padded.types}
    found = model(**{name: torch.from_numpy(values) for name, values in arrays.items() if values is not None})
    outputs = [output.numpy() for output in (found if isinstance(found, tuple) else (found,))]
    return flatten_outputs(outputs, [row]) if request.recipe.outputs else outputs[0]


def _mask(*args: Any, **options: Any) -> torch.Tensor:
    """Build transformers' mask (B, 1, T, T), but make a token that attends to nothing attend to itself.

    With a sliding window a padding position may attend to nothing, its softmax is NaN, and that NaN would reach the
    text's own tokens in the next layer.
    """
    options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False, "use_vmap": False}
    allowed: torch.Tensor = sdpa_mask(*args, **options)
    at = torch.arange(allowed.shape[-1])
    return allowed | (~allowed.any(-1, keepdim=True) & (at[:, None] == at[None, :]))


def _example(request: OpenRequest) -> dict[str, torch.Tensor]:
    """Return two rows of different length, so that tracing takes nothing as constant."""
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    if request.recipe.type_ids and request.recipe.task == "score":
        inputs["token_type_ids"] = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]])
    return inputs


def _trace(model: torch.nn.Module, example: dict[str, torch.Tensor]) -> openvino.Model:
    decoder = TorchScriptPythonDecoder(model, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    converted = front_end.convert(front_end.load(decoder))
    for port, name in zip(converted.inputs, example, strict=True):
        port.get_node().set_element_type(Type.i64)
        port.get_node().set_partial_shape(PartialShape([-1, -1]))
        port.get_tensor().set_names({name})
    converted.validate_nodes_and_infer_types()
    return converted
