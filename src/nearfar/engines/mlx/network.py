"""A folder → the network that turns its padded ids into answers: transformer, head and weights put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.mlx.decoders import Head
from nearfar.engines.mlx.families import family_of
from nearfar.engines.mlx.heads import JudgeHead
from nearfar.engines.mlx.options import Unsupported
from nearfar.engines.mlx.vectors import heads_of
from nearfar.engines.mlx.weights import load_weights, put, quantize_like, read_config, read_quantization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.engines.base import OpenRequest
    from nearfar.engines.common.padding import Padded
    from nearfar.engines.mlx.families import Family
    from nearfar.engines.mlx.options import Config
    from nearfar.engines.mlx.weights import Weights
    from nearfar.models.recipe.recipe import Recipe


class Network(nn.Module):
    """A transformer and what makes answers of its hidden states."""

    def __init__(self, family: Family, config: Config, recipe: Recipe) -> None:
        super().__init__()
        self._run = family.run
        # Whatever looks at more of a row than its last token would miss the head.
        self.shares_prefixes = family.shares_prefixes and (not recipe.outputs or recipe.pooling == ("lasttoken",))
        self.trunk = family.build(config)
        self._heads = heads_of(recipe)
        self._speaks = recipe.uses_lm_head or (recipe.sparse is not None and recipe.sparse.method == "splade")
        self._words = family.words
        if recipe.llm_reranker and recipe.llm_reranker.answer_tokens:
            self.head = JudgeHead(config, recipe.llm_reranker.answer_tokens)
        elif recipe.task == "score" and family.head:
            self.head = family.head(config, max(len(recipe.labels), 1))
        elif recipe.sparse and recipe.sparse.method == "splade" and family.speaker:
            self.head = family.speaker(config, recipe.sparse)

    def __call__(self, padded: Padded, head: Sequence[int] = ()) -> list[mx.array]:
        """Turn ids (B, T), padded on the right, into logits, or what the recipe's outputs name, not yet computed.

        Where ``shares_prefixes``, the ids of all rows may go on from those of a ``head``.
        """
        ids, mask, types = _arrays(padded)
        kept = {"heads": [Head() for _ in self.trunk.layers]} if head else {}
        if head:
            self._run(self.trunk, mx.array([head], dtype=mx.int32), None, None, **kept)
        hidden = self._run(self.trunk, ids, None if padded.mask.all() else mask, types, **kept)
        if self._heads:
            return [make(hidden, mask) for make in self._heads]
        words = (self._words(self.trunk),) if self._speaks else ()  # the table as it is now: it may have been quantised
        return [self.head(hidden, mask, *words)]

    def hidden(self, padded: Padded) -> mx.array:
        """Give the last hidden states (B, T, H) in float32, not yet computed."""
        ids, mask, types = _arrays(padded)
        hidden: mx.array = self._run(self.trunk, ids, None if padded.mask.all() else mask, types)
        return hidden.astype(mx.float32)


def _arrays(padded: Padded) -> tuple[mx.array, mx.array, mx.array | None]:
    types = None if padded.types is None else mx.array(padded.types, dtype=mx.int32)
    return mx.array(padded.ids, dtype=mx.int32), mx.array(padded.mask, dtype=mx.int32), types


def load_network(request: OpenRequest, dtype: mx.Dtype | None) -> tuple[Network, Weights]:
    """Load the folder in ``dtype`` (None: as saved), on the current stream; give its arrays and their names as well.

    Raises EngineUnavailable for what only another engine can run, CheckpointError for files that none can.
    """
    family = family_of(request)
    try:
        network = Network(family, read_config(request.folder), request.recipe)
    except Unsupported as error:
        raise EngineUnavailable(f"{request.folder}/{error}") from error
    except (KeyError, TypeError, ValueError) as error:  # an option that the transformer's file wants and isn't there
        raise EngineUnavailable(f"{request.folder}/{Unsupported(f'what it says ({error!r})')}") from error
    weights = load_weights(request.folder, network, family.adapt, _projections(request))
    if quantization := read_quantization(request.folder):
        quantize_like(network, weights, quantization)
    put(network, weights, dtype, request.folder)
    return network, weights


def _projections(request: OpenRequest) -> list[str]:
    """Name the projection of tokens where it is kept among the transformer's weights, as Stanford's ColBERT does."""
    how = request.recipe.multi_vector
    inside = how is not None and any(dense.file == request.folder / "model.safetensors" for dense in how.dense)
    return ["linear.weight"] if inside else []
