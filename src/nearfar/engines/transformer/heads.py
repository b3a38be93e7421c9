"""What follows the transformer, in torch: pooled vectors, token vectors, sparse weights.

Everything is computed in float32, since sums in half precision lose digits. Every head maps hidden states (B, T, H),
padded on the right where the mask (B, T) is 0, to an array with the batch as its first axis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.models.files.safetensors import find_layer_tensors
from nearfar.models.recipe.dense import Dense, Layer, LayerNorm, Pooling
from nearfar.models.recipe.recipe import Recipe, Sparse


class ModelWithHeads(nn.Module):
    """The whole checkpoint: padded ids → logits (B,) or (B, labels), or the heads' output, a tuple for several."""

    def __init__(self, transformer: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self._transformer = transformer
        self._heads = build_heads(recipe)
        self._is_classifier = recipe.task == "score"
        self._heads_take_logits = recipe.sparse is not None and recipe.sparse.method == "splade"

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run ids (B, T), padded on the right where ``attention_mask`` is 0."""
        output = self._transform(input_ids, attention_mask, token_type_ids)
        if not self._heads:
            return squeeze_logits(output.logits)
        results = self.apply_heads(
            output.logits if self._heads_take_logits else output.last_hidden_state, attention_mask
        )
        if self._is_classifier:
            return squeeze_logits(results[0])
        return results if len(results) > 1 else results[0]

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the last hidden states (B, T, H) in float32; undefined where a row is padded."""
        hidden: Tensor = self._transform(input_ids, attention_mask, token_type_ids).last_hidden_state
        return hidden.float()

    def apply_heads(self, hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return each head's output for the last hidden states (B, T, H)."""
        return tuple(head(hidden, attention_mask) for head in self._heads)

    def _transform(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self._transformer(input_ids=input_ids, attention_mask=attention_mask, **types)


class Float32Module(nn.Module):
    """Runs a module of a classifier in float32, after a transformer in a lower precision."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module.float()

    def forward(self, hidden: Tensor, *args: Any, **options: Any) -> Any:
        """Call the module with float32 hidden states."""
        return self._module(hidden.float(), *args, **options)


def classifier_modules(model: Any) -> list[str]:
    """Return the paths of the modules that a classifier has after its transformer's layers, the pooler among them."""
    base = model.base_model
    if base is model:
        return []
    paths = [name for name, module in model.named_children() if module is not base]
    pooler = getattr(base, "pooler", None)
    return [*paths, f"{model.base_model_prefix}.pooler"] if isinstance(pooler, nn.Module) else paths


def keep_classifier_in_float32(model: Any) -> None:
    """Make all that follows the transformer compute in float32: rounded logits would make many documents equal."""
    for path in classifier_modules(model):
        module = model.get_submodule(path)
        if any(True for _ in module.parameters()):
            model.set_submodule(path, Float32Module(module))


def squeeze_logits(logits: Tensor) -> Tensor:
    """Return (B, labels) in float32, or (B,) for one label."""
    return logits[:, 0].float() if logits.shape[1] == 1 else logits.float()


def build_heads(recipe: Recipe) -> nn.ModuleList:
    """Build the heads that the recipe's outputs need, in their order."""
    heads: list[nn.Module] = [PoolingHead(recipe)] if recipe.pooling else []
    if recipe.multi_vector:
        heads.append(Projection(recipe, recipe.multi_vector.dense, normalize=recipe.multi_vector.normalize))
    if recipe.sparse:
        heads.append(LexicalHead(recipe.sparse.head) if recipe.sparse.head else SpladeHead(recipe.sparse))
    return nn.ModuleList(heads)


class PoolingHead(nn.Module):
    """Pooling, Dense layers and Normalize, as sentence-transformers defines them."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._pooling = recipe.pooling
        self.project = Projection(recipe, recipe.layers, normalize=recipe.normalize, cut_to=recipe.truncate_dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (B, D)."""
        vectors: Tensor = self.project(self.pool(hidden, mask))
        return vectors

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool hidden states: (B, T, H) → (B, H · modes)."""
        hidden = hidden.float()
        return torch.cat([_pool(mode, hidden, mask) for mode in self._pooling], dim=1)


class Projection(nn.Module):
    """Layers on the last axis: pooled vectors' or, for ColBERT, all tokens'."""

    def __init__(self, recipe: Recipe, layers: Sequence[Layer], *, normalize: bool, cut_to: int | None = None) -> None:
        super().__init__()
        self._layers = nn.Sequential(*(_load_layer(layer, recipe.rounds_to) for layer in layers))
        self._normalize = normalize
        self._cut_to = cut_to

    def forward(self, vectors: Tensor, _mask: Tensor | None = None) -> Tensor:
        """Map (…, H) to (…, D)."""
        projected: Tensor = self._layers(vectors.float())
        if self._normalize:
            projected = nn.functional.normalize(projected, dim=-1)
        return projected[..., : self._cut_to]


class SpladeHead(nn.Module):
    """SPLADE: log(1 + relu(logits)), pooled over the tokens."""

    def __init__(self, sparse: Sparse) -> None:
        super().__init__()
        self._log_twice = sparse.log_twice
        self._sum = sparse.pooling == "sum"

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return weights (B, V) from logits (B, T, V)."""
        masked = logits.float() * mask[..., None]  # 0 on padding, which is the least value after relu
        if self._sum:
            return self._saturate(masked).sum(1)
        return self._saturate(masked.amax(1))  # the function is monotonic, and costly: so the maximum comes first

    def _saturate(self, logits: Tensor) -> Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self._log_twice else weights


class LexicalHead(nn.Module):
    """BGE-M3's lexical weights: one for each of the text's own tokens."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self._head = _load_layer(dense, None)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T), 0 on padding."""
        weights: Tensor = torch.relu(self._head(hidden.float()))[..., 0]
        return weights * mask


class DenseLayer(nn.Module):
    """A linear layer and its activation; ``residual`` adds the input. Attributes are named as in the file."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
        self.activation_function = getattr(nn, dense.activation)()
        self._adds_input = dense.residual
        if "residual.weight" in dense.tensors:
            self.residual = nn.Linear(dense.in_features, dense.out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        projected: Tensor = self.activation_function(self.linear(vectors))
        if not self._adds_input:
            return projected
        return projected + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class _UnitLength(nn.Module):
    """Scales each vector to unit length."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        return nn.functional.normalize(vectors, dim=-1)


def _load_layer(layer: Layer, rounds_to: str | None) -> nn.Module:
    """Load a layer in float32, its weights first rounded. Raises CheckpointError if its file doesn't contain them."""
    from safetensors.torch import load_file

    if isinstance(layer, LayerNorm):
        module: nn.Module = nn.Sequential(OrderedDict(norm=nn.LayerNorm(layer.size)))
    elif isinstance(layer, Dense):
        module = DenseLayer(layer)
    else:
        return _UnitLength()
    names = find_layer_tensors(layer)
    tensors = load_file(layer.file)
    module.load_state_dict({name: tensors[found] for name, found in names.items()})
    rounded = module.to(getattr(torch, rounds_to)) if rounds_to else module
    return rounded.float().eval()


def _pool(mode: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """Pool (B, T, H) to (B, H); the mask (B, T) drops padding and keeps special tokens."""
    if mode == "cls":
        return hidden[:, 0]  # padding is on the right, so the first token is position 0
    if mode == "lasttoken":
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])  # (B, 1, H)
        return hidden.gather(1, last)[:, 0]
    if mode == "max":
        return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)
    weights = mask * mask.cumsum(1) if mode == "weightedmean" else mask  # token i weighs i, counted from 1 (SGPT)
    weights = weights[..., None].to(hidden.dtype)  # (B, T, 1)
    total = weights.sum(1)
    return (hidden * weights).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)
