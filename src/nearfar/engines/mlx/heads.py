"""What follows the transformer, on MLX: pooling, Dense and Normalize for vectors, and the classifiers of rerankers.

Attributes are called as transformers calls the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn

from nearfar.engines.mlx.arrays import load_arrays
from nearfar.errors import CheckpointError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.models.judging import Answer
    from nearfar.models.modules import Dense, Pooling
    from nearfar.models.recipe import Recipe

_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "Identity": lambda values: values,
    "Tanh": mx.tanh,
    "ReLU": nn.relu,
    "GELU": nn.gelu,
    "SiLU": nn.silu,
    "Sigmoid": mx.sigmoid,
}


class Vectors(nn.Module):
    """Pooling, Dense layers and Normalize, in float32 whatever the transformer runs in."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._pooling = recipe.pooling
        self._normalize = recipe.normalize
        self._layers = [_load_dense(dense) for dense in recipe.dense]

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Turn hidden states (B, T, H), padded on the right where ``mask`` (B, T) is 0, into vectors (B, D)."""
        hidden = hidden.astype(mx.float32)
        vectors = mx.concatenate([_POOL[mode](hidden, mask) for mode in self._pooling], axis=1)
        for weight, bias, activation in self._layers:
            vectors = vectors @ weight.T
            vectors = activation(vectors if bias is None else vectors + bias)
        if not self._normalize:
            return vectors
        lengths = mx.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / mx.maximum(lengths, 1e-12)  # as torch.nn.functional.normalize


def _load_dense(dense: Dense) -> tuple[mx.array, mx.array | None, Callable[[mx.array], mx.array]]:
    activation = _ACTIVATIONS.get(dense.activation)
    if activation is None:
        raise EngineUnavailable(f"{dense.folder}: MLX has no activation {dense.activation} here; use --engine torch")
    file = dense.folder / "model.safetensors"
    found = {key.removeprefix("linear."): value.astype(mx.float32) for key, value in load_arrays(file).items()}
    mx.eval(found)
    shapes = {"weight": (dense.out_features, dense.in_features)} | (
        {"bias": (dense.out_features,)} if dense.bias else {}
    )
    if {key: value.shape for key, value in found.items()} != shapes:
        raise CheckpointError(f"{file}: holds other weights than config.json says")
    return found["weight"], found.get("bias"), activation


def _cls(hidden: mx.array, _mask: mx.array) -> mx.array:
    return hidden[:, 0]


def _max(hidden: mx.array, mask: mx.array) -> mx.array:
    return mx.where(mask[..., None] == 0, -mx.inf, hidden).max(axis=1)


def _mean(hidden: mx.array, mask: mx.array) -> mx.array:
    weights = mask[..., None].astype(mx.float32)
    return (hidden * weights).sum(axis=1) / weights.sum(axis=1)


def _mean_sqrt(hidden: mx.array, mask: mx.array) -> mx.array:
    weights = mask[..., None].astype(mx.float32)
    return (hidden * weights).sum(axis=1) / mx.sqrt(weights.sum(axis=1))


def _weighted_mean(hidden: mx.array, mask: mx.array) -> mx.array:
    weights = (mask * mx.cumsum(mask, axis=1))[..., None].astype(mx.float32)  # token i weighs i, counted from 1
    return (hidden * weights).sum(axis=1) / weights.sum(axis=1)


def last_token(hidden: mx.array, mask: mx.array) -> mx.array:
    """Take the last token that isn't padding: (B, T, H) → (B, H)."""
    return hidden[mx.arange(hidden.shape[0]), mask.sum(axis=1) - 1]


_POOL: dict[Pooling, Callable[[mx.array, mx.array], mx.array]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": last_token,
}


class BertHead(nn.Module):
    """BertForSequenceClassification's: pooler, tanh, classifier."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.pooler = _Layer(config["hidden_size"], config["hidden_size"])
        self.classifier = nn.Linear(config["hidden_size"], 1)

    def __call__(self, hidden: mx.array, _mask: mx.array) -> mx.array:
        """Give (B,) float32."""
        return _logits(self.classifier(mx.tanh(self.pooler.dense(hidden[:, 0]))))


class RobertaHead(nn.Module):
    """RobertaForSequenceClassification's: dense, tanh, out_proj."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.classifier = _Layer(config["hidden_size"], config["hidden_size"])
        self.classifier.out_proj = nn.Linear(config["hidden_size"], 1)

    def __call__(self, hidden: mx.array, _mask: mx.array) -> mx.array:
        """Give (B,) float32."""
        return _logits(self.classifier.out_proj(mx.tanh(self.classifier.dense(hidden[:, 0]))))


class ModernBertHead(nn.Module):
    """ModernBertForSequenceClassification's: the pooling config.json names, dense, GELU, norm, classifier."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self._pool = {"cls": _cls, "mean": _mean}[config.get("classifier_pooling", "cls")]
        self.head = _Layer(size, size, bias=config.get("classifier_bias", False))
        self.head.norm = nn.LayerNorm(size, eps=config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
        self.classifier = nn.Linear(size, 1)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Give (B,) float32."""
        pooled = self._pool(hidden, mask).astype(hidden.dtype)
        return _logits(self.classifier(self.head.norm(nn.gelu(self.head.dense(pooled)))))


class LastTokenHead(nn.Module):
    """A decoder's, such as Qwen3ForSequenceClassification's: one score of the last token."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.score = nn.Linear(config["hidden_size"], 1, bias=False)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Give (B,) float32."""
        return _logits(self.score(last_token(hidden, mask)))


class JudgeHead(nn.Module):
    """A language model's, of which two rows of the vocabulary count: the logit of yes, less that of no."""

    def __init__(self, config: dict[str, Any], answer: Answer) -> None:
        super().__init__()
        if not config.get("tie_word_embeddings"):
            self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        self._answer = answer

    def __call__(self, hidden: mx.array, mask: mx.array, words: nn.Module) -> mx.array:
        """Give (B,) float32. ``words`` is the transformer's own table, which many models answer from as well."""
        rows = _rows(self.get("lm_head", words), [at for at in (self._answer.yes, self._answer.no) if at is not None])
        logits = last_token(hidden, mask).astype(mx.float32) @ rows.astype(mx.float32).T  # (B, 1 or 2)
        return logits[:, 0] if self._answer.no is None else logits[:, 0] - logits[:, 1]


def _rows(table: nn.Module, ids: list[int]) -> mx.array:
    """Read some rows of a table's weights, quantised or not."""
    at = mx.array(ids)
    if "scales" not in table:
        rows: mx.array = table.weight[at]
        return rows
    biases = table.biases[at] if "biases" in table else None
    way = {"group_size": table.group_size, "bits": table.bits, "mode": table.mode}
    return mx.dequantize(table.weight[at], table.scales[at], biases, **way)


def _logits(scores: mx.array) -> mx.array:
    return scores[:, 0].astype(mx.float32)  # (B, 1) → (B,)


class _Layer(nn.Module):
    """Holds a layer under the name ``dense``."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs, bias=bias)
