"""Loads a checkpoint's transformer with the transformers library, and refuses what it would load wrongly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.transformer.answer_head import to_classifier
from nearfar.models.files.safetensors import find_tensor_file
from nearfar.models.recipe.recipe import Recipe


def load_transformer(request: OpenRequest, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Load the transformer in ``dtype``; ``options`` are passed to ``from_pretrained``.

    Raises CheckpointError for files that can't be loaded, are damaged, or lack weights, which transformers would
    initialize at random. Raises EngineUnavailable for weights that only another engine can run.
    """
    if request.recipe.quantized:
        raise EngineUnavailable(f"{request.folder}: its weights are quantized for MLX; use --engine mlx")
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    if request.recipe.model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{request.folder / 'config.json'}: the installed transformers has no code for the model_type "
            f"{request.recipe.model_type[:50]!r}; update it, or serve another model"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of unused weights would go to our log
    try:
        model, report = _auto_class(request.recipe).from_pretrained(
            request.folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{request.folder}: can't be loaded: {first_line}; download the model again, or serve another"
        ) from error
    _refuse_unsuitable(request, model, report)
    if request.recipe.llm_reranker and request.recipe.llm_reranker.answer_tokens:
        model = to_classifier(request, model, request.recipe.llm_reranker.answer_tokens)
    if request.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # matches no token, so that a classifier uses a row's last one
    model.config.use_cache = False  # no KV cache: nothing here generates
    loaded: nn.Module = model.eval()
    return loaded


def _auto_class(recipe: Recipe) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

    if recipe.uses_lm_head:
        return AutoModelForCausalLM
    if recipe.sparse and recipe.sparse.method == "splade":
        return AutoModelForMaskedLM
    return AutoModel if recipe.task == "embed" else AutoModelForSequenceClassification


def _refuse_unsuitable(request: OpenRequest, model: Any, report: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder:
        raise CheckpointError(
            f"{request.folder / 'config.json'}: {request.recipe.model_type} is an encoder-decoder model, which isn't "
            "supported; use an encoder or a decoder"
        )
    damaged = next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)
    if damaged:
        raise CheckpointError(
            f"{find_tensor_file(request.folder, damaged)}: the weights are damaged: {damaged} has values that aren't "
            "finite; download the model again"
        )
    unused = "pooler." if request.recipe.task == "embed" else None  # no vector is computed from it
    missing = sorted(key for key in report["missing_keys"] if not (unused and unused in key))
    if missing:
        raise CheckpointError(
            f"{request.folder}: the weights lack {missing[0]} and {len(missing) - 1} more that the model needs; use a "
            "folder that has them"
        )
