"""A checkpoint as torch modules: the transformer, and the heads that make an answer of its hidden states.

What the Torch engine runs and what OpenVINO converts is this very code, so that a Recipe means the same on both.
Knows files and tensors; knows no batches. Importing it imports torch: engines do so when they open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.transformer.heads import heads_of
from nearfar.models.files.safetensors import find_tensor_file

if TYPE_CHECKING:
    from nearfar.engines.base import OpenRequest
    from nearfar.models.recipe.llm_reranker import AnswerTokens
    from nearfar.models.recipe.recipe import Recipe


class Answer(nn.Module):
    """The whole checkpoint: padded ids → logits (B,) or (B, labels), or what the heads give, a tuple of several."""

    def __init__(self, transformer: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self._transformer = transformer
        self._heads = heads_of(recipe)
        self._speaks = recipe.sparse is not None and recipe.sparse.method == "splade"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run ids (B, T), padded on the right where ``attention_mask`` is 0; types where the model knows any."""
        found = self._transform(input_ids, attention_mask, token_type_ids)
        if not self._heads:
            return labelled(found.logits)
        answers = self.of_hidden(found.logits if self._speaks else found.last_hidden_state, attention_mask)
        return answers if len(answers) > 1 else answers[0]

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Give the last hidden states (B, T, H) in float32, whatever stands where a row is padded."""
        hidden: Tensor = self._transform(input_ids, attention_mask, token_type_ids).last_hidden_state
        return hidden.float()

    def of_hidden(self, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Give what each head makes of the last hidden states (B, T, H)."""
        return tuple(head(hidden, attention_mask) for head in self._heads)

    def _transform(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self._transformer(input_ids=input_ids, attention_mask=attention_mask, **types)


def labelled(logits: Tensor) -> Tensor:
    """Give (B, labels) in float32, or (B,) where there is one label."""
    return logits[:, 0].float() if logits.shape[1] == 1 else logits.float()


def load_transformer(request: OpenRequest, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Load the transformer, refusing weights that are absent: transformers would make them up at random.

    ``options`` go to ``from_pretrained``. Raises CheckpointError for files that can't be loaded or are damaged.
    """
    if request.recipe.quantized:
        raise EngineUnavailable(f"{request.folder}: its weights are quantised for MLX; use --engine mlx")
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    if request.recipe.model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{request.folder / 'config.json'}: the installed transformers has no code for the model_type "
            f"{request.recipe.model_type[:50]!r}; update it, or serve another model"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of unused weights would break into the log
    try:
        model, report = _class_for(request.recipe).from_pretrained(
            request.folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise CheckpointError(
            f"{request.folder}: can't be loaded: {_first_sentence(error)}; download the model again, or serve another"
        ) from error
    _refuse_unfit(request, model, report)
    if request.recipe.llm_reranker and request.recipe.llm_reranker.answer_tokens:
        model = _as_classifier(request, model, request.recipe.llm_reranker.answer_tokens)
    if request.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # no token has it, so a classifier takes a row's last one
    model.config.use_cache = False  # keys and values of past tokens: nothing here generates
    loaded: nn.Module = model.eval()
    return loaded


def _class_for(recipe: Recipe) -> Any:
    """Choose the class that loads the weights which the recipe needs."""
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
    )

    if recipe.uses_lm_head:
        return AutoModelForCausalLM
    if recipe.sparse and recipe.sparse.method == "splade":
        return AutoModelForMaskedLM
    return AutoModel if recipe.task == "embed" else AutoModelForSequenceClassification


class _Compared(nn.Module):
    """Gives the logit of yes, less that of no where there is one, as the language model's own head would."""

    def __init__(self, head: nn.Linear, said: AnswerTokens, softcap: float | None) -> None:
        super().__init__()
        words = [said.yes] if said.no is None else [said.yes, said.no]
        self._softcap = softcap
        rows, bias = head.weight.detach()[words], getattr(head, "bias", None)
        if softcap is None and said.no is not None:  # one row does for two
            rows = (rows[:1].float() - rows[1:].float()).to(rows.dtype)
            bias = None if bias is None else bias[words[:1]] - bias[words[1:]]
        elif bias is not None:
            bias = bias[words]
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (…, H) into scores (…, 1)."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits if logits.shape[-1] == 1 else logits[..., :1] - logits[..., 1:]


def _as_classifier(request: OpenRequest, model: Any, said: AnswerTokens) -> Any:
    """Make a classifier of a language model: only the logits that are compared are computed, of a row's last token.

    Raises EngineUnavailable where the model does something to its logits that isn't known here.
    """
    from transformers import AutoModelForSequenceClassification

    head = model.get_output_embeddings()
    most = max(said.yes, said.no or 0)
    if most >= head.weight.shape[0]:
        raise CheckpointError(f"{request.folder}: the answer is token {most}, and there are {head.weight.shape[0]}")
    model.config.num_labels = 1
    try:
        with torch.device("meta"):  # no memory, no numbers: everything is put in place below
            classifier: Any = AutoModelForSequenceClassification.from_config(model.config)
    except ValueError as error:
        raise EngineUnavailable(
            f"{request.folder}: transformers has no classifier for {request.recipe.model_type}, so it can't rerank"
        ) from error
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    classifier.score = _Compared(head, said, getattr(model.config, "final_logit_softcapping", None))
    with torch.inference_mode():
        hidden = model.base_model(torch.tensor([[said.yes]])).last_hidden_state
        logits = model(torch.tensor([[said.yes]])).logits[0, 0].float()
        found = classifier.score(hidden)[0, 0, 0].float()
    expected = logits[said.yes] - (0 if said.no is None else logits[said.no])
    apart = 1e-4 if head.weight.dtype == torch.float32 else 0.05  # half precision rounds each logit, and the row
    if (found - expected).abs() > apart * logits.abs().max().clamp(min=1):
        raise EngineUnavailable(
            f"{request.folder}: {request.recipe.architecture} scales its logits in a way not known here"
        )
    return classifier


def _refuse_unfit(request: OpenRequest, model: Any, report: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder:
        raise CheckpointError(
            f"{request.folder / 'config.json'}: {request.recipe.model_type} is an encoder with a decoder, which isn't "
            "supported; take a model that is only one of the two"
        )
    damaged = next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)
    if damaged:
        raise CheckpointError(
            f"{find_tensor_file(request.folder, damaged)}: the weights are damaged: {damaged} holds numbers that "
            "aren't finite; download the model again"
        )
    absent = sorted(key for key in report["missing_keys"] if not (request.recipe.task == "embed" and "pooler." in key))
    if absent:
        raise CheckpointError(
            f"{request.folder}: the weights lack {absent[0]} and {len(absent) - 1} more that the model needs; take a "
            "folder that has them"
        )


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
