"""The supported architectures, and a folder → the network that computes a padded batch's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn
from msgspec import Struct

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.padding import PaddedBatch
from nearfar.engines.mlx import architectures, heads
from nearfar.engines.mlx.attention import PrefixCache, full_mask
from nearfar.engines.mlx.upstream import Config, Unsupported, add_defaults
from nearfar.engines.mlx.weights import (
    PlacedWeights,
    fill,
    load_weights,
    quantize_like,
    read_config,
    read_quantization,
    refuse_untied,
)
from nearfar.models.recipe.recipe import Recipe, Sparse


class Architecture(Struct, frozen=True, kw_only=True):
    """One architecture: its functions in ``architectures``, and its heads."""

    build: Callable[[Config], nn.Module]
    run: Callable[..., mx.array]
    # For a number of labels; None: no classifier is supported.
    classifier: Callable[[Config, int], nn.Module] | None = None
    splade: Callable[[Config, Sparse], nn.Module] | None = None
    embeddings: Callable[[nn.Module], nn.Module] = lambda transformer: transformer.embed_tokens
    # Converts a named array to mlx's layout.
    adapt: Callable[[str, mx.array], mx.array] = lambda _, array: array
    # Whether ``run`` takes PrefixCaches.
    shares_prefixes: bool = False
    # Whether ``run`` applies the mask everywhere, so that tokens within the text may be unattended.
    applies_mask: bool = False


def _decoder(build: Callable[[Config], nn.Module]) -> Architecture:
    return Architecture(
        build=build, run=architectures.run_decoder, classifier=heads.build_last_token_classifier, shares_prefixes=True
    )


_ROBERTA = Architecture(
    build=architectures.build_roberta,
    run=architectures.run_bert,
    classifier=heads.build_roberta_classifier,
    applies_mask=True,
)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(
        build=architectures.build_bert,
        run=architectures.run_bert,
        classifier=heads.build_bert_classifier,
        splade=heads.SpladeHead,
        embeddings=lambda transformer: transformer.embeddings.word_embeddings,
        applies_mask=True,
    ),
    "xlm-roberta": _ROBERTA,
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "modernbert": Architecture(
        build=architectures.build_modernbert,
        run=architectures.run_modernbert,
        classifier=heads.build_modernbert_classifier,
        applies_mask=True,
    ),
    "qwen2": _decoder(architectures.build_qwen2),
    "qwen3": _decoder(architectures.build_qwen3),
    "gemma": _decoder(architectures.build_gemma),
    "llama": _decoder(architectures.build_llama),
    "llama_bidirec": Architecture(
        build=architectures.build_llama, run=lambda model, ids, mask, _types: model(ids, full_mask(mask))
    ),
    "gemma3_text": Architecture(build=architectures.build_gemma3, run=architectures.run_gemma3),
    "lfm2": Architecture(
        build=architectures.build_lfm2,
        run=architectures.run_lfm2,
        adapt=architectures.adapt_lfm2,
    ),
}


def find_architecture(recipe: Recipe) -> Architecture:
    """Return the checkpoint's family. Raises EngineUnavailable, listing those that there are, if MLX lacks it."""
    kind, supported = "model", ARCHITECTURES
    if recipe.task == "score" and not recipe.pooling:
        kind, supported = "reranker", {name: one for name, one in ARCHITECTURES.items() if one.classifier}
    if recipe.sparse and recipe.sparse.method == "splade":
        kind, supported = "SPLADE model", {name: one for name, one in ARCHITECTURES.items() if one.splade}
    if recipe.multi_vector and recipe.multi_vector.expansion and not recipe.multi_vector.expansion.attended:
        kind = "ColBERT model with unattended query expansion"
        supported = {name: one for name, one in ARCHITECTURES.items() if one.applies_mask}
    if recipe.model_type not in supported:
        raise EngineUnavailable(
            f"the MLX engine has no {recipe.model_type} {kind if recipe.model_type in ARCHITECTURES else 'model'}, "
            f"only {', '.join(sorted(supported))}; use --engine torch"
        )
    return supported[recipe.model_type]


class Network(nn.Module):
    """A transformer and its heads."""

    def __init__(self, family: Architecture, config: Config, recipe: Recipe) -> None:
        super().__init__()
        self._run = family.run
        # Where the result depends on more than a row's last token, it would lack the prefix.
        self.shares_prefixes = family.shares_prefixes and (
            recipe.pooling == ("lasttoken",) or not (recipe.outputs or recipe.pooling)
        )
        self.trunk = family.build(config)
        self._heads = heads.build_heads(recipe)
        self._is_classifier = recipe.task == "score"
        is_splade = recipe.sparse is not None and recipe.sparse.method == "splade"
        self._embeddings = family.embeddings if recipe.uses_lm_head or is_splade else None
        # A decoder's classifier reads the last token that isn't this one, as transformers' does.
        self._skipped_id: int | None = None
        if recipe.llm_reranker and recipe.llm_reranker.answer_tokens:
            self.head = heads.AnswerHead(config, recipe.llm_reranker.answer_tokens)
        elif recipe.task == "score" and family.classifier and not recipe.pooling:
            self.head = family.classifier(config, max(len(recipe.labels), 1))
            if family.classifier is heads.build_last_token_classifier:
                self._skipped_id = recipe.pad_token_id
        elif recipe.sparse and is_splade and family.splade:
            self.head = family.splade(config, recipe.sparse)

    @property
    def ties_embeddings(self) -> bool:
        """Return whether the transformer's embeddings compute logits as well."""
        return self._embeddings is not None and "lm_head" not in self.head

    def __call__(self, padded: PaddedBatch, prefix: Sequence[int] = ()) -> list[mx.array]:
        """Return logits, or the recipe's outputs, for ids (B, T) padded on the right; lazy arrays.

        With ``shares_prefixes``, all rows may continue the ids of a ``prefix``.
        """
        mask = mx.array(padded.mask, dtype=mx.int32)
        hidden = self._transform(padded, prefix)
        if self._heads:
            outputs = [head(hidden.astype(mx.float32), mask) for head in self._heads]
            return [_squeeze(outputs[0])] if self._is_classifier else outputs
        # The embeddings as they are now: they may have been quantized since.
        embeddings = (self._embeddings(self.trunk),) if self._embeddings else ()
        if self._skipped_id is not None:
            mask = mx.array(_until_last(padded.ids, self._skipped_id), dtype=mx.int32)
        logits = self.head(hidden, mask, *embeddings).astype(mx.float32)
        return [_squeeze(logits)]

    def hidden_states(self, padded: PaddedBatch) -> mx.array:
        """Return the last hidden states (B, T, H) in float32, lazy."""
        return self._transform(padded).astype(mx.float32)

    def _transform(self, padded: PaddedBatch, prefix: Sequence[int] = ()) -> mx.array:
        caches = {"caches": [PrefixCache() for _ in self.trunk.layers]} if prefix else {}
        if prefix:
            self._run(self.trunk, mx.array([prefix], dtype=mx.int32), None, None, **caches)
        ids = mx.array(padded.ids, dtype=mx.int32)
        mask = None if padded.mask.all() else mx.array(padded.mask, dtype=mx.int32)
        types = None if padded.types is None else mx.array(padded.types, dtype=mx.int32)
        return self._run(self.trunk, ids, mask, types, **caches)


def _squeeze(logits: mx.array) -> mx.array:
    """Return (B, labels), or (B,) for one label."""
    return logits[:, 0] if logits.shape[1] == 1 else logits


def _until_last(ids: npt.NDArray[np.int64], skipped: int) -> npt.NDArray[np.bool_]:
    """Return a mask (B, T) that ends with each row's last id other than ``skipped``, or with its first."""
    positions = np.arange(ids.shape[1])
    last = (positions * (ids != skipped)).max(axis=1, keepdims=True)
    mask: npt.NDArray[np.bool_] = positions <= last
    return mask


def load_network(request: OpenRequest, dtype: mx.Dtype | None) -> tuple[Network, PlacedWeights]:
    """Load the folder in ``dtype`` (None: as saved) on the current stream; return its arrays as well.

    Raises EngineUnavailable for what only another engine can run, CheckpointError for files that none can.
    """
    family = find_architecture(request.recipe)
    try:
        config = add_defaults(read_config(request.folder) | request.recipe.config_options)
        network = Network(family, config, request.recipe)
    except Unsupported as error:
        raise EngineUnavailable(f"{request.folder}/{error}") from error
    except (KeyError, TypeError, ValueError) as error:  # the model file needs an option that is missing
        raise EngineUnavailable(f"{request.folder}/{Unsupported(f'these options ({error!r})')}") from error
    weights = load_weights(request.folder, network, family.adapt, _used_by_heads(request))
    if network.ties_embeddings:
        embeddings = family.embeddings(network.trunk)
        path = next(path for path, module in network.named_modules() if module is embeddings)
        refuse_untied(weights, f"{path}.weight", request.folder)
    if quantization := read_quantization(request.folder):
        quantize_like(network, weights, quantization)
    fill(network, weights, dtype, request)
    if isinstance(head := getattr(network, "head", None), heads.Classifier):
        head.set_dtype(mx.float32)  # rounded logits would make many documents equal
    return network, weights


def _used_by_heads(request: OpenRequest) -> list[str]:
    """Return the arrays in the transformer's file that a head loads itself, such as Stanford's ColBERT's projection."""
    multi_vector = request.recipe.multi_vector
    file = request.folder / "model.safetensors"
    return ["linear.weight"] if multi_vector and any(dense.file == file for dense in multi_vector.dense) else []
