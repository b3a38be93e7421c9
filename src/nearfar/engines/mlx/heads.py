"""What follows the transformer, on MLX, and has its weights among the transformer's: classifiers, and words' heads.

Attributes are called as transformers calls the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn

from nearfar.engines.mlx.options import Unsupported
from nearfar.engines.mlx.vectors import first_token, last_token, mean

if TYPE_CHECKING:
    from nearfar.models.recipe.llm_reranker import AnswerTokens
    from nearfar.models.recipe.sparse import Sparse


class BertHead(nn.Module):
    """BertForSequenceClassification's: pooler, tanh, classifier."""

    def __init__(self, config: dict[str, Any], labels: int) -> None:
        super().__init__()
        self.pooler = _Layer(config["hidden_size"], config["hidden_size"])
        self.classifier = nn.Linear(config["hidden_size"], labels)

    def __call__(self, hidden: mx.array, _mask: mx.array) -> mx.array:
        """Give (B,) or (B, labels) float32."""
        return _logits(self.classifier(mx.tanh(self.pooler.dense(hidden[:, 0]))))


class RobertaHead(nn.Module):
    """RobertaForSequenceClassification's: dense, tanh, out_proj."""

    def __init__(self, config: dict[str, Any], labels: int) -> None:
        super().__init__()
        self.classifier = _Layer(config["hidden_size"], config["hidden_size"])
        self.classifier.out_proj = nn.Linear(config["hidden_size"], labels)

    def __call__(self, hidden: mx.array, _mask: mx.array) -> mx.array:
        """Give (B,) or (B, labels) float32."""
        return _logits(self.classifier.out_proj(mx.tanh(self.classifier.dense(hidden[:, 0]))))


class ModernBertHead(nn.Module):
    """ModernBertForSequenceClassification's: the pooling config.json names, dense, GELU, norm, classifier."""

    def __init__(self, config: dict[str, Any], labels: int) -> None:
        super().__init__()
        size = config["hidden_size"]
        self._pool = {"cls": first_token, "mean": mean}[config.get("classifier_pooling", "cls")]
        self.head = _Layer(size, size, bias=config.get("classifier_bias", False))
        self.head.norm = nn.LayerNorm(size, eps=config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
        self.classifier = nn.Linear(size, labels)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Give (B,) or (B, labels) float32."""
        pooled = self._pool(hidden, mask).astype(hidden.dtype)
        return _logits(self.classifier(self.head.norm(nn.gelu(self.head.dense(pooled)))))


class LastTokenHead(nn.Module):
    """A decoder's, such as Qwen3ForSequenceClassification's: one score of the last token."""

    def __init__(self, config: dict[str, Any], labels: int) -> None:
        super().__init__()
        self.score = nn.Linear(config["hidden_size"], labels, bias=False)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Give (B,) or (B, labels) float32."""
        return _logits(self.score(last_token(hidden, mask)))


class JudgeHead(nn.Module):
    """A language model's, of which two rows of the vocabulary count: the logit of yes, less that of no."""

    def __init__(self, config: dict[str, Any], answer: AnswerTokens) -> None:
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
    scores = scores.astype(mx.float32)
    return scores[:, 0] if scores.shape[1] == 1 else scores


class BertWords(nn.Module):
    """BertForMaskedLM's, for SPLADE: dense, GELU, norm, the words' own table; tamed, and the most of each text."""

    def __init__(self, config: dict[str, Any], how: Sparse) -> None:
        super().__init__()
        if not config.get("tie_word_embeddings", True):
            raise Unsupported("tie_word_embeddings = false")
        size = config["hidden_size"]
        self.cls = nn.Module()
        self.cls.predictions = nn.Module()
        self.cls.predictions.transform = _Layer(size, size)
        self.cls.predictions.transform.LayerNorm = nn.LayerNorm(size, eps=config.get("layer_norm_eps", 1e-12))
        self.cls.predictions.bias = mx.zeros(config["vocab_size"])
        self._twice = how.log_twice
        self._sum = how.pooling == "sum"

    def __call__(self, hidden: mx.array, mask: mx.array, words: nn.Module) -> mx.array:
        """Give weights (B, V) float32."""
        said = self.cls.predictions.transform
        logits = words.as_linear(said.LayerNorm(nn.gelu(said.dense(hidden)))) + self.cls.predictions.bias  # (B, T, V)
        counted = logits.astype(mx.float32) * mask[..., None]
        return self._tame(counted).sum(axis=1) if self._sum else self._tame(counted.max(axis=1))

    def _tame(self, logits: mx.array) -> mx.array:
        weights = mx.log1p(mx.maximum(logits, 0))
        return mx.log1p(weights) if self._twice else weights


class _Layer(nn.Module):
    """Holds a layer under the name ``dense``."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs, bias=bias)
