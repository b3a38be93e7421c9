"""A checkpoint as torch modules: the transformer, and the heads that make an answer of its hidden states.

What the Torch engine runs and what OpenVINO converts is this very code, so that a Recipe means the same on both.
Knows files and tensors; knows no batches. Importing it imports torch: engines do so when they open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.engines.heads import heads_of
from nearfar.errors import CheckpointError, EngineUnavailable
from nearfar.models.weights import file_of

if TYPE_CHECKING:
    from nearfar.engines import EngineOrder
    from nearfar.models.judging import Judge
    from nearfar.models.recipe import Recipe


class Answer(nn.Module):
    """The whole checkpoint: padded ids → logits (B,) or (B, labels), or what the heads give, a tuple of several."""

    def __init__(self, transformer: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self._transformer = transformer
        self._heads = heads_of(recipe)
        self._speaks = recipe.sparse is not None and recipe.sparse.of == "vocabulary"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run ids (B, T), padded on the right where ``attention_mask`` is 0; types where the model knows any."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self._transformer(input_ids=input_ids, attention_mask=attention_mask, **types)
        if not self._heads:
            return labelled(found.logits)
        hidden = found.logits if self._speaks else found.last_hidden_state
        answers = tuple(head(hidden, attention_mask) for head in self._heads)
        return answers if len(answers) > 1 else answers[0]


def labelled(logits: Tensor) -> Tensor:
    """Give (B, labels) in float32, or (B,) where there is one label."""
    return logits[:, 0].float() if logits.shape[1] == 1 else logits.float()


def load_transformer(order: EngineOrder, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Load the transformer, refusing weights that are absent: transformers would make them up at random.

    ``options`` go to ``from_pretrained``. Raises CheckpointError for files that can't be loaded or are damaged.
    """
    if order.recipe.quantized:
        raise EngineUnavailable(f"{order.folder}: its weights are quantised for MLX; use --engine mlx")
    from transformers import (
        CONFIG_MAPPING,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
    )
    from transformers.utils import logging

    if order.recipe.model_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{order.folder / 'config.json'}: the installed transformers has no code for the model_type "
            f"{order.recipe.model_type[:50]!r}; update it, or serve another model"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of unused weights would break into the log
    auto = AutoModel if order.recipe.task == "embed" else AutoModelForSequenceClassification
    if order.recipe.speaks:
        auto = AutoModelForCausalLM
    if order.recipe.sparse and order.recipe.sparse.of == "vocabulary":
        auto = AutoModelForMaskedLM
    try:
        model, report = auto.from_pretrained(
            order.folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise CheckpointError(
            f"{order.folder}: can't be loaded: {_first_sentence(error)}; download the model again, or serve another"
        ) from error
    _refuse_unfit(order, model, report)
    if order.recipe.judge and order.recipe.speaks:
        model = _as_classifier(model, order.recipe.judge)
    if order.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # no token has it, so a classifier takes a row's last one
    model.config.use_cache = False  # keys and values of past tokens: nothing here generates
    loaded: nn.Module = model.eval()
    return loaded


def _as_classifier(model: Any, judge: Judge) -> Any:
    """Make a classifier of a language model: its one logit is that of yes, less that of no."""
    from transformers import AutoModelForSequenceClassification

    model.config.num_labels = 1
    with torch.device("meta"):  # no memory, no numbers: everything is put in place below
        classifier: Any = AutoModelForSequenceClassification.from_config(model.config)
    rows: Tensor = model.get_output_embeddings().weight
    weight = rows[judge.yes] if judge.no is None else rows[judge.yes].float() - rows[judge.no].float()
    score = nn.Linear(weight.shape[0], 1, bias=False)
    score.weight = nn.Parameter(weight.detach()[None].to(rows.dtype), requires_grad=False)
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    classifier.score = score
    return classifier


def _refuse_unfit(order: EngineOrder, model: Any, report: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder:
        raise CheckpointError(
            f"{order.folder / 'config.json'}: {order.recipe.model_type} is an encoder with a decoder, which isn't "
            "supported; take a model that is only one of the two"
        )
    damaged = next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)
    if damaged:
        raise CheckpointError(
            f"{file_of(order.folder, damaged)}: the weights are damaged: {damaged} holds numbers that aren't finite; "
            "download the model again"
        )
    absent = sorted(key for key in report["missing_keys"] if not (order.recipe.task == "embed" and "pooler." in key))
    if absent:
        raise CheckpointError(
            f"{order.folder}: the weights lack {absent[0]} and {len(absent) - 1} more that the model needs; take a "
            "folder that has them"
        )


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
