"""One checkpoint in MLX: chooses device and precision, and runs it. Everything on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import mlx.core as mx
import msgspec
import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.settings import Device, Dtype
from nearfar.core.types import FloatArray, Representation
from nearfar.engines.base import EngineInfo, OpenRequest, RowsTooLarge
from nearfar.engines.common.padding import PaddedBatch, pad, round_up_length, unpad
from nearfar.engines.common.precision import flatten_outputs, measure_loss
from nearfar.engines.common.prefixes import group_by_prefix
from nearfar.engines.common.representations import refuse_torch_only, represent
from nearfar.engines.mlx.memory import limit_memory, run_in_parts
from nearfar.engines.mlx.network import Network, load_network
from nearfar.engines.mlx.weights import read_quantization
from nearfar.models.tokenization.row import Row

_Results = TypeVar("_Results", "FloatArray", "list[FloatArray]", "list[Representation]")
_DTYPES: dict[Dtype, mx.Dtype] = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# Guesses for the GPU, where nothing has been measured yet. A CPU's caches are small.
_BATCH_TOKENS = {"mps": 8192, "cpu": 512}
_MAX_PADDING = {"mps": 512, "cpu": 32}
_LENGTH_STEP = {"mps": 16, "cpu": 1}  # new shapes are slow on a GPU: lengths are rounded up to a multiple of this


class MlxEngine:
    """Runs a network on Metal, or on the CPU. Must be opened, called and closed on one thread."""

    _network: Network

    def __init__(self, request: OpenRequest) -> None:
        refuse_torch_only(request)
        self._recipe = request.recipe
        self._device = _find_device(request.device)
        self._stream = mx.gpu if self._device == "mps" else mx.cpu
        limit_memory()
        with mx.stream(self._stream):
            dtype, reason = self._open(request)
        self.info = EngineInfo(
            name="mlx",
            device=self._device,
            dtype=dtype,
            dtype_reason=reason,
            dim=request.recipe.dim,
            labels=max(len(request.recipe.labels), 1),
            outputs=request.recipe.outputs,
            batch_tokens=_BATCH_TOKENS[self._device],
            max_padding=_MAX_PADDING[self._device],
            shares_prefixes=self._network.shares_prefixes,
            warm_up_s=0.25,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Return (B, D) float32 vectors, pooled, projected and normalized as the Recipe defines."""
        return self._first_output(batch, (self._recipe.dim,))

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Return the logits of texts or pairs, (B,) or (B, labels)."""
        labels = len(self._recipe.labels)
        return self._first_output(batch, (labels,) if labels > 1 else ())

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Return each row's outputs, from one forward."""
        return self._in_parts(
            batch, lambda rows: represent(rows, self._forward(rows), self._recipe), [Representation()] * len(batch)
        )

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Return each row's last hidden states (n, H) in float32."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint doesn't pool")

        def run(rows: Sequence[Row]) -> list[FloatArray]:
            return unpad(rows, *_evaluate([self._network.hidden_states(self._pad(rows))]))

        return self._in_parts(batch, run, [np.empty((0, 0), dtype=np.float32)] * len(batch))

    def memory(self) -> dict[str, int]:
        """Return bytes of the whole process: in arrays, in kept buffers, and the peak of both; on any thread."""
        return {"active": mx.get_active_memory(), "cache": mx.get_cache_memory(), "peak": mx.get_peak_memory()}

    def close(self) -> None:
        """Free the weights and the cached buffers."""
        del self._network
        mx.clear_cache()

    def _first_output(self, batch: Sequence[Row], shape: tuple[int, ...]) -> FloatArray:
        """Return the first output, which has this shape per row."""
        results = np.full((len(batch), *shape), np.nan, dtype=np.float32)
        return self._in_parts(batch, lambda rows: self._forward(rows)[0], results)

    def _in_parts(self, batch: Sequence[Row], run: Callable[[Sequence[Row]], _Results], results: _Results) -> _Results:
        """Run the batch in parts that fit into memory, and return ``results`` filled with theirs."""

        def fill(start: int, rows: Sequence[Row]) -> None:
            results[start : start + len(rows)] = run(rows)

        with mx.stream(self._stream):
            too_large = run_in_parts(batch, _LENGTH_STEP[self._device], fill)
        if too_large:
            raise RowsTooLarge(results, too_large)
        return results

    def _forward(self, rows: Sequence[Row]) -> list[FloatArray]:
        """Return the recipe's outputs, or logits; a common prefix is computed once where the network supports it."""
        if not self._network.shares_prefixes:
            return _evaluate(self._network(self._pad(rows)))
        groups = group_by_prefix(rows, self._recipe.pad_token_id)
        parts: list[mx.array] = []
        for group in groups:
            prefix = rows[group.rows[0]].ids[: group.length]
            own = [msgspec.structs.replace(rows[at], ids=rows[at].ids[group.length :]) for at in group.rows]
            parts.append(self._network(self._pad(own), prefix)[0])
            # A GPU runs it while the next group is prepared.
            mx.async_eval(parts[-1])  # type: ignore[no-untyped-call]
        outputs = np.concatenate(_evaluate(parts))
        outputs[np.concatenate([group.rows for group in groups])] = outputs.copy()  # back in the batch's order
        return [outputs]

    def _pad(self, rows: Sequence[Row]) -> PaddedBatch:
        longest = max(len(row.ids) for row in rows)
        length = round_up_length(longest, _LENGTH_STEP[self._device], self._recipe.max_tokens)
        return pad(rows, self._recipe.pad_token_id or 0, length)

    def _comparable(self, batch: Sequence[Row]) -> FloatArray:
        """Return the outputs in a form in which two precisions can be compared."""
        if not self._recipe.outputs:
            return self.score(batch)
        with mx.stream(self._stream):
            return flatten_outputs(self._forward(batch), batch)

    def _open(self, request: OpenRequest) -> tuple[str, str]:
        """Load in the requested precision, or in the fastest that keeps the numbers; return it and why."""
        requested = request.dtype
        if requested == "int8":
            raise EngineUnavailable("the MLX engine has no int8; quantize the model: nearfar convert MODEL --bits 8")
        if quantization := read_quantization(request.folder):
            self._load(request, None if requested == "auto" else _DTYPES[requested])
            reason = "as the weights were saved" if requested == "auto" else f"computing in {requested}"
            return f"{quantization['bits']} bit {quantization.get('mode', 'affine')}", reason
        if requested != "auto":
            self._load(request, _DTYPES[requested])
            return requested, "requested"
        self._load(request, mx.float32)
        if self._device == "cpu":
            return "float32", "auto: half precision is slower on a CPU"
        if not request.probes:
            return "float32", "auto: there are no texts to compare another precision on"
        exact = self._comparable(request.probes)
        losses = []
        for dtype in ("float16", "bfloat16"):
            self._load(request, _DTYPES[dtype])
            loss = measure_loss(exact, self._comparable(request.probes), request.recipe.outputs, request.probes)
            if loss.is_small:
                return dtype, f"auto: {loss}"
            losses.append(f"{dtype}: {loss}")
        self._load(request, mx.float32)
        return "float32", f"auto: half precision would lose too much: {'; '.join(losses)}"

    def _load(self, request: OpenRequest, dtype: mx.Dtype | None) -> None:
        if hasattr(self, "_network"):
            del self._network  # a large model must not be in memory twice
        self._network = load_network(request, dtype)[0]


def _evaluate(outputs: list[mx.array]) -> list[FloatArray]:
    mx.eval(outputs)  # nothing lazy leaves this thread: another one has no stream to compute it on
    return [np.array(output, dtype=np.float32) for output in outputs]


def _find_device(requested: Device) -> str:
    """Return the device's name, Metal's if there is one. Raises EngineUnavailable if it doesn't exist."""
    has_gpu = mx.metal.is_available()
    if requested == "mps" and not has_gpu:
        raise EngineUnavailable("mlx sees no GPU on this machine; use --device cpu")
    return "mps" if has_gpu and requested != "cpu" else "cpu"
