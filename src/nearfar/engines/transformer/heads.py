"""What comes after the transformer, in torch: of hidden states a vector, one a token, or weights of the vocabulary.

All in float32, whatever the transformer runs in: sums in half lose digits. Every head takes hidden states (B, T, H),
padded on the right where the mask (B, T) is 0, and gives an array whose first axis is the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nearfar.core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.models.recipe.dense import Dense, Pooling
    from nearfar.models.recipe.multi_vector import MultiVector
    from nearfar.models.recipe.recipe import Recipe
    from nearfar.models.recipe.sparse import Sparse


def heads_of(recipe: Recipe) -> nn.ModuleList:
    """Make the heads that the recipe's outputs need, in their order."""
    heads: list[nn.Module] = [Vectors(recipe)] if recipe.pooling else []
    if recipe.multi_vector:
        heads.append(TokenVectors(recipe.multi_vector))
    if recipe.sparse:
        heads.append(
            _VocabularyWeights(recipe.sparse) if recipe.sparse.method == "splade" else _TokenWeights(recipe.sparse)
        )
    return nn.ModuleList(heads)


class Vectors(nn.Module):
    """Pooling, Dense layers and Normalize."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._pooling = recipe.pooling
        self._normalize = recipe.normalize
        self._dense = nn.Sequential(*map(load_dense, recipe.dense))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Give vectors (B, D)."""
        return self.project(self.pool(hidden, mask))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Make one row of each text's hidden states: (B, T, H) → (B, H · modes)."""
        hidden = hidden.float()
        return torch.cat([_POOL[mode](hidden, mask) for mode in self._pooling], dim=1)

    def project(self, pooled: Tensor) -> Tensor:
        """Do what follows pooling: (B, H · modes) → (B, D)."""
        vectors: Tensor = self._dense(pooled)
        return nn.functional.normalize(vectors, dim=1) if self._normalize else vectors


class TokenVectors(nn.Module):
    """A projection of each token, and its length made 1."""

    def __init__(self, how: MultiVector) -> None:
        super().__init__()
        self._dense = nn.Sequential(*map(load_dense, how.dense))
        self._normalize = how.normalize

    def forward(self, hidden: Tensor, _mask: Tensor) -> Tensor:
        """Give (B, T, M); which of the T count, the rows say."""
        vectors: Tensor = self._dense(hidden.float())
        return nn.functional.normalize(vectors, dim=2) if self._normalize else vectors


class _VocabularyWeights(nn.Module):
    """SPLADE: what a language model's head says at every token, tamed and pooled over the text."""

    def __init__(self, how: Sparse) -> None:
        super().__init__()
        self._twice = how.log_twice
        self._sum = how.pooling == "sum"

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Turn logits (B, T, V) into weights (B, V). The maximum first: what follows keeps the order, and is costly."""
        counted = logits.float() * mask[..., None]  # padding says 0, and relu makes that the least there is
        if self._sum:
            return self._tame(counted).sum(1)
        return self._tame(counted.amax(1))

    def _tame(self, logits: Tensor) -> Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self._twice else weights


class _TokenWeights(nn.Module):
    """BGE-M3: a weight for each of the text's own tokens."""

    def __init__(self, how: Sparse) -> None:
        super().__init__()
        if how.head is None:
            raise TypeError("weights of a text's own tokens come from a linear layer")
        self._head = load_dense(how.head)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Give (B, T), 0 for padding."""
        weights: Tensor = torch.relu(self._head(hidden.float()))[..., 0]
        return weights * mask


def load_dense(dense: Dense) -> nn.Module:
    """Load a linear layer and its activation, in float32. Raises CheckpointError for a file that hasn't got them."""
    from safetensors.torch import load_file

    kind: Any = getattr(nn, dense.activation, None)
    if kind is not nn.Identity and getattr(kind, "__module__", "") != nn.modules.activation.__name__:
        raise CheckpointError(f"{dense.file}: torch.nn has no activation {dense.activation}")
    linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
    try:
        activation = kind()
        named = {key.removeprefix("linear."): value for key, value in load_file(dense.file).items()}
        linear.load_state_dict({key: named[key] for key in ("weight", "bias") if key in named})
    except Exception as error:  # safetensors raises its own, load_state_dict a RuntimeError
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{dense.file}: {first}") from error
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
