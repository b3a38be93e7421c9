"""LLM rerankers as classifiers: only the answer tokens' logits are computed, for a row's last token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.models.recipe.llm_reranker import AnswerTokens


class AnswerHead(nn.Module):
    """Computes logit(yes) less logit(no), or logit(yes) alone, from rows of the language model's own head."""

    def __init__(self, lm_head: nn.Linear, answer: AnswerTokens, softcap: float | None) -> None:
        super().__init__()
        ids = [answer.yes] if answer.no is None else [answer.yes, answer.no]
        self._softcap = softcap
        weight, bias = lm_head.weight.detach()[ids], getattr(lm_head, "bias", None)
        if softcap is None and answer.no is not None:  # without a cap the difference of the rows is enough
            weight = (weight[:1].float() - weight[1:].float()).to(weight.dtype)
            bias = None if bias is None else bias[ids[:1]] - bias[ids[1:]]
        elif bias is not None:
            bias = bias[ids]
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute scores (…, 1) from hidden states (…, H)."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits if logits.shape[-1] == 1 else logits[..., :1] - logits[..., 1:]


def to_classifier(request: OpenRequest, model: Any, answer: AnswerTokens) -> Any:
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
        logits = model(ids).logits[0, 0].float()
    expected = logits[answer.yes] - (0 if answer.no is None else logits[answer.no])
    tolerance = 1e-4 if head.weight.dtype == torch.float32 else 0.05  # half precision rounds each logit, and the row
    return bool((score - expected).abs() <= tolerance * logits.abs().max().clamp(min=1))
