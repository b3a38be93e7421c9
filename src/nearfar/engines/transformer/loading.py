"""Loads a checkpoint's transformer with the transformers library, and refuses what it would load wrongly.

LLM rerankers become classifiers: only the answer tokens' logits are computed, for a row's last token.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.transformer.heads import keep_classifier_in_float32
from nearfar.engines.transformer.length_dependence import forget_earlier_texts
from nearfar.models.files.json_files import read_json
from nearfar.models.files.safetensors import HEAD, find_tensor_file
from nearfar.models.recipe.recipe import ENCODERS, AnswerTokens, Recipe

_INNER_DENSE = re.compile(r"dense\.\d+\.")  # mlx-embeddings' own layers


def load_transformer(request: OpenRequest, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Load the transformer in ``dtype``, its classifier in float32; pass ``options`` to ``from_pretrained``.

    Raises CheckpointError for files that can't be loaded, are damaged, or lack weights, which transformers would
    initialize at random. Raises EngineUnavailable for weights that only another engine can run.
    """
    if request.recipe.quantized:
        raise EngineUnavailable(f"{request.folder}: its weights are quantized for MLX; use --engine mlx")
    from transformers import CONFIG_MAPPING

    if request.recipe.model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{request.folder / 'config.json'}: the installed transformers has no code for the model_type "
            f"{request.recipe.model_type[:50]!r}; update it, or serve another model"
        )
    model, report = _from_pretrained(request, dtype, options)
    _refuse_unsuitable(request, model, report)
    if request.recipe.llm_reranker and request.recipe.llm_reranker.answer_tokens:
        model = _to_classifier(request, model, request.recipe.llm_reranker.answer_tokens)
    if request.recipe.task == "score" and dtype != torch.float32:
        keep_classifier_in_float32(model)
    if request.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # matches no token, so that a classifier uses a row's last one
    model.config.use_cache = False  # no KV cache: nothing here generates
    forget_earlier_texts(model, request.recipe.max_tokens)
    loaded: nn.Module = model.eval()
    return loaded


def _from_pretrained(request: OpenRequest, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return transformers' model, and its report of missing and unused weights."""
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of unused weights would go to our log
    overrides = dict(request.recipe.config_options)
    if request.recipe.labels and not request.recipe.pooling:
        overrides["num_labels"] = len(request.recipe.labels)  # its default is two, sentence-transformers' may be one
    rounded = _rounding(request.recipe, dtype)
    try:
        config = AutoConfig.from_pretrained(request.folder, local_files_only=True, trust_remote_code=False, **overrides)
        config.return_dict = True  # as sentence-transformers does
        config.chunk_size_feed_forward = 0  # changes no numbers, but fails for other lengths than its multiples
        model, report = _auto_class(request.recipe).from_pretrained(
            request.folder,
            config=config,
            dtype=rounded or dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        first_line = _first_sentence(error)
        way_out = "download the model again, or serve another"
        if "Validation error for field" in first_line:  # of config.json
            way_out = f"correct {request.folder / 'config.json'}, or serve another model"
        if isinstance(error, KeyError) and (unknown := _unknown_value(request, error)):
            first_line, way_out = unknown, "update transformers, or serve another"
        if "ignore_mismatched_sizes" in first_line:
            first_line = "its weights have other shapes than config.json states, such as for another num_labels"
        if method := _quantization(request):
            first_line, way_out = f"its weights are quantized ({method}): {first_line}", "use the unquantized model"
        raise CheckpointError(f"{request.folder}: can't be loaded: {first_line}; {way_out}") from error
    return model if rounded is None else model.float(), report


def _rounding(recipe: Recipe, dtype: torch.dtype) -> torch.dtype | None:
    """Return what weights are rounded to before they become float32. A lower ``dtype`` itself rounds them, once."""
    return getattr(torch, recipe.rounds_to) if recipe.rounds_to and dtype == torch.float32 else None


def _first_sentence(error: Exception) -> str:
    """Return the first line of an error's message; two where the first ends with a colon."""
    first, _, rest = str(error).strip().partition("\n")
    if first.endswith(":"):
        first = f"{first} {rest.strip().partition(chr(10))[0]}"
    return first.rstrip(":. ") or type(error).__name__


def _unknown_value(request: OpenRequest, error: KeyError) -> str:
    """Return which value of config.json transformers has no code for, or an empty string."""
    config = read_json(request.folder / "config.json", dict[str, Any]) | request.recipe.config_options
    for key, value in config.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, found in inner:
            if found == error.args[0]:
                return f"transformers has no {'.'.join(filter(None, (key, name)))} {found!r}, which config.json states"
    return ""


def _quantization(request: OpenRequest) -> str:
    """Return the method by which config.json has the weights quantized, or an empty string."""
    found = read_json(request.folder / "config.json", dict[str, Any]).get("quantization_config")
    return str(found.get("quant_method", "by an unnamed method")) if isinstance(found, dict) else ""


def _auto_class(recipe: Recipe) -> Any:
    """Return the class that loads what the recipe needs: of an encoder with a decoder, only the encoder."""
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

    if recipe.uses_lm_head:
        return AutoModelForCausalLM
    if recipe.sparse and recipe.sparse.method == "splade":
        return AutoModelForMaskedLM
    if recipe.model_type in ENCODERS:
        return getattr(transformers, ENCODERS[recipe.model_type])
    return AutoModel if recipe.task == "embed" or recipe.pooling else AutoModelForSequenceClassification


def _refuse_unsuitable(request: OpenRequest, model: Any, report: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder and request.recipe.model_type not in ENCODERS:
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
    _refuse_unused_head(request, report)
    pools = request.recipe.task == "embed" or request.recipe.pooling
    unused = "pooler." if pools else None  # no vector is computed from it
    missing = sorted(key for key in report["missing_keys"] if not (unused and unused in key))
    others = f" and {len(missing) - 1} more" if missing[1:] else ""
    if missing:
        raise CheckpointError(
            f"{request.folder}: the weights lack {missing[0]}{others} that the model needs; use a folder that has them"
        )


def _refuse_unused_head(request: OpenRequest, report: dict[str, Any]) -> None:
    """Raise CheckpointError for weights of a head that the model doesn't use, unless modules.json replaces the head."""
    unused = sorted(key for key in report["unexpected_keys"] if HEAD.match(key) or _INNER_DENSE.match(key))
    pools = request.recipe.task == "embed" or request.recipe.pooling
    if unused and not (pools and (request.folder / "modules.json").is_file()):
        raise CheckpointError(
            f"{request.folder}: {request.recipe.architecture} doesn't use the weights {unused[0]}, so it wouldn't be "
            "served as it was trained; name the class that has them under architectures in config.json, or remove them"
        )


class AnswerHead(nn.Module):
    """Computes logit(yes) less logit(no), or logit(yes) alone, from rows of the language model's own head."""

    def __init__(self, lm_head: nn.Linear, answer: AnswerTokens, softcap: float | None) -> None:
        super().__init__()
        ids = [answer.yes] if answer.no is None else [answer.yes, answer.no]
        self._softcap = softcap
        weight, bias = lm_head.weight.detach()[ids], getattr(lm_head, "bias", None)
        if softcap is None and answer.no is not None:  # without a cap the difference of the rows is enough
            weight = weight[:1].float() - weight[1:].float()
            bias = None if bias is None else bias[ids[:1]] - bias[ids[1:]]
        elif bias is not None:
            bias = bias[ids]
        self.weight = nn.Parameter(weight.float(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute scores (…, 1) from hidden states (…, H), in float32."""
        logits = nn.functional.linear(hidden.float(), self.weight, self.bias)
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits if logits.shape[-1] == 1 else logits[..., :1] - logits[..., 1:]


def _to_classifier(request: OpenRequest, model: Any, answer: AnswerTokens) -> Any:
    """Build transformers' sequence classifier around a causal language model, with an AnswerHead as its score layer.

    Raises CheckpointError for a token outside the vocabulary, and EngineUnavailable for a model that computes its
    logits in another way.
    """
    from transformers import AutoModelForSequenceClassification

    lm_head = model.get_output_embeddings()
    largest, size = max(answer.yes, answer.no or 0), lm_head.weight.shape[0]
    if largest >= size:
        raise CheckpointError(f"{request.folder}: the answer is token {largest}, but the vocabulary has {size}")
    model.config.num_labels = 1
    try:
        with torch.device("meta"):  # allocates nothing: all modules are replaced below
            classifier: Any = AutoModelForSequenceClassification.from_config(model.config)
    except ValueError as error:
        raise EngineUnavailable(
            f"{request.folder}: transformers has no classifier for {request.recipe.model_type}, so it can't rerank"
        ) from error
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    classifier.score = AnswerHead(lm_head, answer, getattr(model.config, "final_logit_softcapping", None))
    if not _same_score(model, classifier.score, answer):
        raise EngineUnavailable(
            f"{request.folder}: {request.recipe.architecture} scales its logits in a way that isn't supported"
        )
    return classifier


def _same_score(model: Any, head: AnswerHead, answer: AnswerTokens) -> bool:
    """Return whether the head computes the same score as the language model's logits, on one token."""
    ids = torch.tensor([[answer.yes]])
    with torch.inference_mode():
        score = head(model.base_model(ids).last_hidden_state)[0, 0, 0].float()
        logits = model(ids).logits[0, 0]
    dtype, logits = logits.dtype, logits.float()
    expected = logits[answer.yes] - (0 if answer.no is None else logits[answer.no])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05  # half precision rounds each logit, and the row
    return bool((score - expected).abs() <= tolerance * logits.abs().max().clamp(min=1))
