"""A checkpoint as torch modules: the transformer, and all that comes between its hidden states and the answer.

What the Torch engine runs and what OpenVINO converts is this very code, so that a Recipe means the same on both.
Knows files and tensors; knows no batches. Importing it imports torch: engines do so when they open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.errors import CheckpointError, EngineUnavailable
from nearfar.models.weights import file_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.engines import EngineOrder
    from nearfar.models.judging import Judge
    from nearfar.models.modules import Dense, Pooling
    from nearfar.models.recipe import Recipe


class Vectors(nn.Module):
    """Pooling, Dense layers and Normalize, in float32 whatever the transformer runs in: sums in half lose digits."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._pooling = recipe.pooling
        self._normalize = recipe.normalize
        self._dense = nn.Sequential(*map(_load_dense, recipe.dense))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Turn hidden states (B, T, H), padded on the right where ``mask`` (B, T) is 0, into vectors (B, D)."""
        return self.project(self.pool(hidden, mask))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Make one row of each text's hidden states: (B, T, H) → (B, H · modes)."""
        hidden = hidden.float()
        return torch.cat([_POOL[mode](hidden, mask) for mode in self._pooling], dim=1)

    def project(self, pooled: Tensor) -> Tensor:
        """Do what follows pooling: (B, H · modes) → (B, D)."""
        vectors: Tensor = self._dense(pooled)
        return nn.functional.normalize(vectors, dim=1) if self._normalize else vectors


class Answer(nn.Module):
    """The whole checkpoint: padded ids → vectors (B, D), or the logits (B,) of pairs."""

    def __init__(self, transformer: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self._transformer = transformer
        self._vectors = Vectors(recipe) if recipe.task == "embed" else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Run ids (B, T), padded on the right where ``attention_mask`` is 0; types where the model knows any."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self._transformer(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self._vectors is None:
            logits: Tensor = found.logits[:, 0].float()  # (B, 1) → (B,)
            return logits
        vectors: Tensor = self._vectors(found.last_hidden_state, attention_mask)
        return vectors


def load_transformer(order: EngineOrder, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Load the transformer, refusing weights that are absent: transformers would make them up at random.

    ``options`` go to ``from_pretrained``. Raises CheckpointError for files that can't be loaded or are damaged.
    """
    if order.recipe.quantized:
        raise EngineUnavailable(f"{order.folder}: its weights are quantised for MLX; use --engine mlx")
    from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
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


def _load_dense(dense: Dense) -> nn.Module:
    from safetensors.torch import load_file

    kind: Any = getattr(nn, dense.activation, None)
    if kind is not nn.Identity and getattr(kind, "__module__", "") != nn.modules.activation.__name__:
        raise CheckpointError(f"{dense.folder}: torch.nn has no activation {dense.activation}")
    linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
    try:
        activation = kind()
        weights = load_file(dense.folder / "model.safetensors")
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    except Exception as error:  # safetensors raises its own, load_state_dict a RuntimeError
        raise CheckpointError(f"{dense.folder / 'model.safetensors'}: {_first_sentence(error)}") from error
    return nn.Sequential(linear, activation).float().eval()


def _cls(hidden: Tensor, _mask: Tensor) -> Tensor:
    return hidden[:, 0]  # (B, T, H) → (B, H); padding is on the right, so the first token is position 0


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)  # (B, T, H) → (B, H); mask drops padding, keeps specials


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = (mask * mask.cumsum(1))[..., None].to(hidden.dtype)  # token i weighs i, counted from 1 (SGPT)
    return (hidden * weights).sum(1) / weights.sum(1)


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])  # (B, 1, H)
    return hidden.gather(1, last)[:, 0]


_POOL: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
