"""What follows the transformer, on MLX: pooled vectors, token vectors, sparse weights, and classifiers' logits.

Each maps hidden states (B, T, H), padded on the right where the mask (B, T) is 0. Classifiers' attributes have the
names of the weights in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx import nn

from nearfar.engines.mlx.upstream import Unsupported
from nearfar.engines.mlx.weights import load_layer
from nearfar.models.recipe.dense import Layer, Normalize, Pooling
from nearfar.models.recipe.recipe import AnswerTokens, Recipe, Sparse

Head = Callable[[mx.array, mx.array], mx.array]


def build_heads(recipe: Recipe) -> list[Head]:
    """Build the heads that have weights in separate files, in the order of the recipe's outputs.

    They take hidden states in float32. The token vectors (B, T, M) are those of all tokens; rows select the ones that
    are returned. BGE-M3's weights of a text's own tokens are (B, T), 0 on padding.
    """
    heads: list[Head] = [_pooling_head(recipe)] if recipe.pooling else []
    if recipe.multi_vector:
        project = _projection(recipe, recipe.multi_vector.dense, normalize=recipe.multi_vector.normalize)
        heads.append(lambda hidden, _mask: project(hidden))
    if recipe.sparse and recipe.sparse.head:
        layer = load_layer(recipe.sparse.head)
        heads.append(lambda hidden, mask: mx.maximum(layer(hidden)[..., 0], 0) * mask)
    return heads


def _pooling_head(recipe: Recipe) -> Head:
    """Return pooling, Dense layers and Normalize as one function to (B, D)."""
    project = _projection(recipe, recipe.layers, normalize=recipe.normalize, cut_to=recipe.truncate_dim)
    return lambda hidden, mask: project(mx.concatenate([_pool(mode, hidden, mask) for mode in recipe.pooling], axis=1))


def _projection(
    recipe: Recipe, layers: Sequence[Layer], *, normalize: bool, cut_to: int | None = None
) -> Callable[[mx.array], mx.array]:
    steps = [_unit_length if isinstance(layer, Normalize) else load_layer(layer, recipe.rounds_to) for layer in layers]
    steps += [_unit_length] if normalize else []

    def run(vectors: mx.array) -> mx.array:
        for step in steps:
            vectors = step(vectors)
        return vectors[..., :cut_to]

    return run


def _unit_length(vectors: mx.array) -> mx.array:
    lengths = mx.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / mx.maximum(lengths, 1e-12)  # as torch.nn.functional.normalize


def _pool(mode: Pooling, hidden: mx.array, mask: mx.array) -> mx.array:
    """Pool (B, T, H) to (B, H), without padding, where the mask (B, T) is 0."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return hidden[mx.arange(hidden.shape[0]), mask.sum(axis=1) - 1]
    if mode == "max":
        return mx.where(mask[..., None] == 0, -mx.inf, hidden).max(axis=1)
    weights = mask * mx.cumsum(mask, axis=1) if mode == "weightedmean" else mask  # token i weighs i, counted from 1
    weights = weights[..., None].astype(mx.float32)  # (B, T, 1)
    total = weights.sum(axis=1)
    return (hidden * weights).sum(axis=1) / (mx.sqrt(total) if mode == "mean_sqrt_len_tokens" else total)


# Classifiers: → (B, labels)


class Classifier(nn.Module):
    """Pools hidden states and computes logits of them. ``parts`` become attributes, which ``logits`` reads."""

    def __init__(self, pooling: Pooling, logits: Callable[[Any, mx.array], mx.array], **parts: nn.Module) -> None:
        super().__init__()
        self._pooling, self._logits = pooling, logits
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        """Return logits, computed in float32."""
        return self._logits(self, _pool(self._pooling, hidden.astype(mx.float32), mask))


def build_bert_classifier(config: dict[str, Any], labels: int) -> Classifier:
    """Build BertForSequenceClassification's: pooler, tanh, classifier."""
    size = config["hidden_size"]
    parts = {"pooler": _named(dense=nn.Linear(size, size)), "classifier": nn.Linear(size, labels)}
    return Classifier("cls", lambda own, pooled: own.classifier(mx.tanh(own.pooler.dense(pooled))), **parts)


def build_roberta_classifier(config: dict[str, Any], labels: int) -> Classifier:
    """Build RobertaForSequenceClassification's: dense, tanh, out_proj."""
    size = config["hidden_size"]
    head = _named(dense=nn.Linear(size, size), out_proj=nn.Linear(size, labels))
    return Classifier(
        "cls", lambda own, pooled: own.classifier.out_proj(mx.tanh(own.classifier.dense(pooled))), classifier=head
    )


def build_modernbert_classifier(config: dict[str, Any], labels: int) -> Classifier:
    """Build ModernBertForSequenceClassification's: config.json's pooling, dense, GELU, norm, classifier."""
    size, pooling = config["hidden_size"], config.get("classifier_pooling", "cls")
    if pooling not in {"cls", "mean"}:
        raise Unsupported(f"classifier_pooling = {pooling}")
    dense = nn.Linear(size, size, bias=config.get("classifier_bias", False))
    norm = nn.LayerNorm(size, eps=config.get("norm_eps", 1e-5), bias=config.get("norm_bias", False))
    parts = {"head": _named(dense=dense, norm=norm), "classifier": nn.Linear(size, labels)}
    return Classifier(
        pooling, lambda own, pooled: own.classifier(own.head.norm(nn.gelu(own.head.dense(pooled)))), **parts
    )


def build_last_token_classifier(config: dict[str, Any], labels: int) -> Classifier:
    """Build a decoder's, such as Qwen3ForSequenceClassification's: a linear layer on the last token."""
    score = nn.Linear(config["hidden_size"], labels, bias=False)
    return Classifier("lasttoken", lambda own, pooled: own.score(pooled), score=score)


class AnswerHead(nn.Module):
    """An LLM reranker's: logit(yes) less logit(no), or logit(yes) alone, of the last token."""

    def __init__(self, config: dict[str, Any], answer: AnswerTokens) -> None:
        super().__init__()
        if not config.get("tie_word_embeddings"):
            self.lm_head = nn.Embedding(config["vocab_size"], config["hidden_size"])  # only two rows are needed
        self._answer = answer

    def __call__(self, hidden: mx.array, mask: mx.array, embeddings: nn.Module) -> mx.array:
        """Return (B, 1). ``embeddings`` are the transformer's own, which tied models compute logits with."""
        ids = [token for token in (self._answer.yes, self._answer.no) if token is not None]
        rows: mx.array = self.get("lm_head", embeddings)(mx.array(ids))  # (1 or 2, H), dequantized
        logits = _pool("lasttoken", hidden, mask).astype(mx.float32) @ rows.astype(mx.float32).T  # (B, 1 or 2)
        return logits if self._answer.no is None else logits[:, :1] - logits[:, 1:]


class SpladeHead(nn.Module):
    """SPLADE on BertForMaskedLM's head: dense, GELU, norm, embeddings; log(1 + relu), pooled → (B, V) float32."""

    def __init__(self, config: dict[str, Any], sparse: Sparse) -> None:
        super().__init__()
        if not config.get("tie_word_embeddings", True):
            raise Unsupported("tie_word_embeddings = false")
        size = config["hidden_size"]
        norm = nn.LayerNorm(size, eps=config.get("layer_norm_eps", 1e-12))
        transform = _named(dense=nn.Linear(size, size), LayerNorm=norm)
        self.cls = _named(predictions=_named(transform=transform, bias=mx.zeros(config["vocab_size"])))
        self._log_twice = sparse.log_twice
        self._sum = sparse.pooling == "sum"

    def __call__(self, hidden: mx.array, mask: mx.array, embeddings: nn.Module) -> mx.array:
        """Return weights."""
        transform = self.cls.predictions.transform
        states = transform.LayerNorm(nn.gelu(transform.dense(hidden)))
        logits = embeddings.as_linear(states) + self.cls.predictions.bias  # (B, T, V)
        masked = logits.astype(mx.float32) * mask[..., None]
        return self._saturate(masked).sum(axis=1) if self._sum else self._saturate(masked.max(axis=1))

    def _saturate(self, logits: mx.array) -> mx.array:
        weights = mx.log1p(mx.maximum(logits, 0))
        return mx.log1p(weights) if self._log_twice else weights


def _named(**parts: nn.Module | mx.array) -> nn.Module:
    """Group modules and arrays as the checkpoint's names do."""
    group = nn.Module()
    for name, part in parts.items():
        setattr(group, name, part)
    return group
