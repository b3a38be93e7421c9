"""A checkpoint as torch modules: the transformer, and all that comes between its hidden states and the answer.

What the Torch engine runs and what OpenVINO converts is this very code, so that a Recipe means the same on both.
Knows files and tensors; knows no batches. Importing it imports torch: engines do so when they open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.errors import CheckpointError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.engines import EngineOrder
    from nearfar.models.judging import Answer as Said
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
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

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
        raise CheckpointError(f"{order.folder}: can't be loaded: {_first_sentence(error)}") from error
    _refuse_unfit(order, model, report)
    if order.recipe.judge and order.recipe.judge.answer:
        model = _as_classifier(order, model, order.recipe.judge.answer)
    if order.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # no token has it, so a classifier takes a row's last one
    model.config.use_cache = False  # keys and values of past tokens: nothing here generates
    loaded: nn.Module = model.eval()
    return loaded


class _Compared(nn.Module):
    """Gives the logit of yes, less that of no where there is one, as the language model's own head would."""

    def __init__(self, head: nn.Linear, said: Said, softcap: float | None) -> None:
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


def _as_classifier(order: EngineOrder, model: Any, said: Said) -> Any:
    """Make a classifier of a language model: only the logits that are compared are computed, of a row's last token.

    Raises EngineUnavailable where the model does something to its logits that isn't known here.
    """
    from transformers import AutoModelForSequenceClassification

    head = model.get_output_embeddings()
    most = max(said.yes, said.no or 0)
    if most >= head.weight.shape[0]:
        raise CheckpointError(f"{order.folder}: the answer is token {most}, and there are {head.weight.shape[0]}")
    model.config.num_labels = 1
    try:
        with torch.device("meta"):  # no memory, no numbers: everything is put in place below
            classifier: Any = AutoModelForSequenceClassification.from_config(model.config)
    except ValueError as error:
        raise EngineUnavailable(
            f"{order.folder}: transformers makes no classifier of {order.recipe.model_type}, so it can't be a reranker"
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
            f"{order.folder}: {order.recipe.architecture} scales its logits in a way not known here"
        )
    return classifier


def _refuse_unfit(order: EngineOrder, model: Any, report: dict[str, Any]) -> None:
    if model.config.is_encoder_decoder:
        raise CheckpointError(
            f"{order.folder}: {order.recipe.model_type} is an encoder with a decoder, which isn't supported"
        )
    damaged = next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)
    if damaged:
        raise CheckpointError(f"{order.folder}: the weights are damaged: {damaged} holds numbers that aren't finite")
    absent = sorted(key for key in report["missing_keys"] if not (order.recipe.task == "embed" and "pooler." in key))
    if absent:
        raise CheckpointError(
            f"{order.folder}: the weights lack {absent[0]} and {len(absent) - 1} more that the model needs"
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
