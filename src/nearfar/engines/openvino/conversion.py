"""A checkpoint's torch modules → an OpenVINO model with dynamic shapes: padded ids in, vectors or logits out.

OpenVINO's own ``convert_model`` reports each use to its makers over the network; the front end beneath it doesn't.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from openvino import PartialShape, Type
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.common.padding import pad
from nearfar.engines.common.representations import comparable, stack
from nearfar.engines.openvino.forward import HIDDEN
from nearfar.engines.transformer.module import Answer, load_transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import openvino

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import OpenRequest
    from nearfar.models.tokenization.row import Row

_ATTENTION = "nearfar_converted"


def convert(request: OpenRequest) -> tuple[openvino.Model, FloatArray]:
    """Convert the checkpoint in float32; give the model and torch's own answers to the probes, to hold it against.

    Raises CheckpointError for files that torch can't load, EngineUnavailable for an architecture that can't be
    converted.
    """
    transformer: Any = load_transformer(request, torch.float32)
    if transformer.config._attn_implementation == "sdpa":  # noqa: SLF001 — nothing public tells
        AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
        AttentionMaskInterface.register(_ATTENTION, _mask)
        transformer.set_attn_implementation(_ATTENTION)
    answer = Answer(transformer, request.recipe)
    traced = _WithHidden(answer) if request.recipe.pooling else answer
    example = _example(request)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every branch that it takes for good
            model = _trace(traced, example)
            if request.recipe.pooling:
                _mark_hidden(model)
            exact = [_exact(answer(**_tensors([row], request)), row, request) for row in request.probes]
    except Exception as error:  # torch, transformers and openvino each raise their own
        raise EngineUnavailable(
            f"{request.folder}: OpenVINO can't convert {request.recipe.architecture} ({type(error).__name__}); "
            "use --engine torch"
        ) from error
    return model, stack(exact)


class _WithHidden(torch.nn.Module):
    """The checkpoint with one output more: the last hidden states."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give what the heads make of them, and then the hidden states (B, T, H)."""
        hidden = self._answer.hidden(input_ids, attention_mask)
        return (*self._answer.of_hidden(hidden, attention_mask), hidden)


def _mark_hidden(model: openvino.Model) -> None:
    """Take the last output away again, and let its source be known by name: it costs only those who ask for it."""
    result = model.get_results()[-1]
    result.input_value(0).get_node().set_friendly_name(HIDDEN)
    model.remove_result(result)


def _exact(answer: torch.Tensor | tuple[torch.Tensor, ...], row: Row, request: OpenRequest) -> FloatArray:
    arrays = [output.numpy() for output in (answer if isinstance(answer, tuple) else (answer,))]
    return comparable(arrays, [row]) if request.recipe.outputs else arrays[0]


def _mask(*args: Any, **options: Any) -> torch.Tensor:
    """Build the mask (B, 1, T, T) that transformers would, and let a token that sees nothing see itself.

    A padded row's place sees nothing at all under a sliding window, its softmax is NaN, and that NaN would reach the
    text's own tokens in the next layer.
    """
    options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    seen: torch.Tensor = sdpa_mask(*args, **options)
    at = torch.arange(seen.shape[-1])
    return seen | (~seen.any(-1, keepdim=True) & (at[:, None] == at[None, :]))


def _example(request: OpenRequest) -> dict[str, torch.Tensor]:
    """Give two rows of unlike length, so that nothing is taken for constant."""
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    if request.recipe.type_ids and request.recipe.task == "score":
        inputs["token_type_ids"] = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]])
    return inputs


def _tensors(rows: Sequence[Row], request: OpenRequest) -> dict[str, torch.Tensor]:
    padded = pad(rows, request.recipe.pad_token_id or 0)
    named = {"input_ids": padded.ids, "attention_mask": padded.mask, "token_type_ids": padded.types}
    return {name: torch.from_numpy(values) for name, values in named.items() if values is not None}


def _trace(answer: torch.nn.Module, example: dict[str, torch.Tensor]) -> openvino.Model:
    decoder = TorchScriptPythonDecoder(answer, example_input=example)
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(decoder))
    for given, name in zip(model.inputs, example, strict=True):
        given.get_node().set_element_type(Type.i64)
        given.get_node().set_partial_shape(PartialShape([-1, -1]))
        given.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model
