"""The Torch engine: any transformers encoder, decoder or one-label cross-encoder, on cpu, cuda or mps.

Everything between the transformer's last hidden states and the answer is ours and follows the Recipe, so
that a Recipe means the same on every engine. Texts are padded on the right, always: causal models then see
the same positions as without padding.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.engines import Engine, EngineInfo, EngineOrder
from nearfar.errors import CheckpointError, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from nearfar.config import Device
    from nearfar.models.modules import Dense, Pooling
    from nearfar.models.tokens import Row
    from nearfar.types import FloatArray

# Padded budgets: 1,024 tokens beat 4,096 and 16,384 on two cores by length-sorted batches; a GPU wants to be
# filled, and the figure for it is a guess.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 4096}


class TorchKind:
    """Finds out, without importing torch, whether the engine can run, and opens it."""

    rank = 10

    def obstacle(self, device: Device) -> str | None:  # noqa: ARG002 — only torch itself knows its devices
        """Look for the packages; a missing device shows when the engine opens."""
        missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
        if missing:
            return f'{", ".join(missing)} not installed; pip install "nearfar[torch]"'
        return None

    def open(self, order: EngineOrder) -> Engine:
        """Load the checkpoint."""
        return TorchEngine(order)


class TorchEngine:
    """One checkpoint in Torch. Opened, used and closed on one thread."""

    def __init__(self, order: EngineOrder) -> None:
        import torch  # 1 to 2 s: only when an engine is really opened

        self._torch = torch
        self._recipe = order.recipe
        self._device = torch.device(_device(order.device))
        dtype = torch.float32 if order.dtype == "auto" else getattr(torch, order.dtype)
        self._model = _load(order, dtype).to(self._device).eval()
        self._heads = [_load_dense(dense).to(self._device) for dense in order.recipe.dense]
        self.info = EngineInfo(
            name="torch",
            device=str(self._device),
            dtype=str(dtype).removeprefix("torch."),
            dim=order.recipe.dim,
            batch_tokens=_BATCH_TOKENS[self._device.type],
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) float32 vectors, pooled, projected and normalised as the Recipe says."""
        torch = self._torch
        with torch.inference_mode():
            inputs = self._inputs(batch)
            hidden = self._model(**inputs).last_hidden_state.float()  # (B, T, H); sums in half precision lose digits
            mask = inputs["attention_mask"]
            vectors = torch.cat([_POOL[mode](hidden, mask) for mode in self._recipe.pooling], dim=1)  # (B, H · modes)
            for head in self._heads:
                vectors = head(vectors)
            if self._recipe.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
            return _array(vectors)

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give the (B,) logits of pairs."""
        if self._recipe.pad_token_id is not None:
            return self._logits(batch)
        # No padding id, no padding: a decoder's classifier looks for that id to find a row's last token.
        logits = np.empty(len(batch), dtype=np.float32)
        for length in {len(row.ids) for row in batch}:
            places = [at for at, row in enumerate(batch) if len(row.ids) == length]
            logits[places] = self._logits([batch[at] for at in places])
        return logits

    def _logits(self, batch: Sequence[Row]) -> FloatArray:
        with self._torch.inference_mode():
            return _array(self._model(**self._inputs(batch)).logits[:, 0])  # (B, 1) → (B,)

    def close(self) -> None:
        """Let go of the weights, and of the GPU memory they were in."""
        del self._model, self._heads
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _inputs(self, batch: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest row: ids, mask and, for pairs, type ids, each (B, T)."""
        longest = max(len(row.ids) for row in batch)
        pad = self._recipe.pad_token_id or 0
        columns = {
            "input_ids": [row.ids + [pad] * (longest - len(row.ids)) for row in batch],
            "attention_mask": [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in batch],
        }
        if any(row.type_ids for row in batch):
            types = [row.type_ids or [0] * len(row.ids) for row in batch]
            columns["token_type_ids"] = [ids + [0] * (longest - len(ids)) for ids in types]
        return {name: self._torch.tensor(rows, device=self._device) for name, rows in columns.items()}


def _array(tensor: torch.Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().numpy()
    return array


def _device(asked: Device) -> str:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[asked]:
        raise EngineUnavailable(
            f"torch sees no {asked} device on this machine; it has: {', '.join(n for n in there if there[n])}"
        )
    return asked


def _load(order: EngineOrder, dtype: torch.dtype) -> torch.nn.Module:
    """Load the transformer, refusing weights that are absent: transformers would make them up at random."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of unused weights would break into the log
    auto = AutoModel if order.recipe.task == "embed" else AutoModelForSequenceClassification
    try:
        model, report = auto.from_pretrained(
            order.folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise CheckpointError(f"{order.folder}: can't be loaded: {_first_sentence(error)}") from error
    if model.config.is_encoder_decoder:
        raise CheckpointError(
            f"{order.folder}: {order.recipe.model_type} is an encoder with a decoder, which isn't supported"
        )
    damaged = next((name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()), None)
    if damaged:
        raise CheckpointError(f"{order.folder}: the weights are damaged: {damaged} holds numbers that aren't finite")
    if order.recipe.pad_token_id is None:
        model.config.pad_token_id = -1  # no token has it, so a classifier takes a row's last one
    model.config.use_cache = False  # keys and values of past tokens: nothing here generates
    absent = sorted(key for key in report["missing_keys"] if not (order.recipe.task == "embed" and "pooler." in key))
    if absent:
        raise CheckpointError(
            f"{order.folder}: the weights lack {absent[0]} and {len(absent) - 1} more that the model needs"
        )
    loaded: torch.nn.Module = model
    return loaded


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _load_dense(dense: Dense) -> torch.nn.Module:
    import torch
    from safetensors.torch import load_file

    kind: Any = getattr(torch.nn, dense.activation, None)
    if kind is not torch.nn.Identity and getattr(kind, "__module__", "") != torch.nn.modules.activation.__name__:
        raise CheckpointError(f"{dense.folder}: torch.nn has no activation {dense.activation}")
    linear = torch.nn.Linear(dense.in_features, dense.out_features, bias=dense.bias)
    try:
        activation = kind()
        weights = load_file(dense.folder / "model.safetensors")
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    except Exception as error:  # safetensors raises its own, load_state_dict a RuntimeError
        raise CheckpointError(f"{dense.folder / 'model.safetensors'}: {_first_sentence(error)}") from error
    return torch.nn.Sequential(linear, activation).float().eval()


def _cls(hidden: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]  # (B, T, H) → (B, H); padding is on the right, so the first token is position 0


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)  # (B, T, H) → (B, H); mask drops padding, keeps specials


def _mean_sqrt(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = (mask * mask.cumsum(1))[..., None].to(hidden.dtype)  # token i weighs i, counted from 1 (SGPT)
    return (hidden * weights).sum(1) / weights.sum(1)


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return hidden[range(len(hidden)), mask.sum(1) - 1]


_POOL: dict[Pooling, Callable[[Any, Any], Any]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}

kind = TorchKind()
