"""One checkpoint in MLX: which device and precision it runs in, and the forwards. Everything on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import Representation
from nearfar.engines.base import EngineInfo, OpenRequest, RowsTooLarge
from nearfar.engines.common.oom import is_out_of_memory
from nearfar.engines.common.padding import pad, rounded_length
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.common.prefixes import group_by_prefix
from nearfar.engines.common.representations import comparable, own_states, refuse_blind, represent, stack
from nearfar.engines.mlx.memory import bound_memory, in_parts, memory_in_use
from nearfar.engines.mlx.network import Network, load_network
from nearfar.engines.mlx.weights import read_quantization
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nearfar.core.settings import Device, Dtype
    from nearfar.core.types import FloatArray
    from nearfar.engines.common.padding import Padded

    _Forward = Callable[[Sequence[Row]], list[FloatArray]]
    _Put = Callable[[int, Sequence[Row], list[FloatArray]], None]

_DTYPES: dict[Dtype, mx.Dtype] = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# Guesses for the GPU: nobody has measured there yet. A processor's caches hold little.
_BATCH_TOKENS = {"mps": 8192, "cpu": 512}
_MOST_PADDING = {"mps": 512, "cpu": 32}
_LENGTH_STEP = {"mps": 16, "cpu": 1}  # on a GPU new shapes cost: lengths are rounded up to a multiple of this


class MlxEngine:
    """Runs a network on Metal, or on the processor. Must be opened, called and closed on one thread."""

    _network: Network

    def __init__(self, request: OpenRequest) -> None:
        refuse_blind(request)
        self._recipe = request.recipe
        self._device = _device(request.device)
        self._stream = mx.gpu if self._device == "mps" else mx.cpu
        bound_memory()
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
            max_padding=_MOST_PADDING[self._device],
            shares_prefixes=self._network.shares_prefixes,
        )

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        """Give (B, D) float32 vectors, pooled, projected and normalised as the Recipe says."""
        return self._first(batch, (self._recipe.dim,))

    def score(self, batch: Sequence[Row]) -> FloatArray:
        """Give the logits of texts or pairs, (B,) or (B, labels)."""
        labels = len(self._recipe.labels)
        return self._first(batch, (labels,) if labels > 1 else ())

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        """Give all that each row becomes, from one forward."""
        results = [Representation()] * len(batch)

        def put(start: int, rows: Sequence[Row], outputs: list[FloatArray]) -> None:
            results[start : start + len(rows)] = represent(rows, outputs, self._recipe)

        if too_large := self._run(batch, put):
            raise RowsTooLarge(results, too_large)
        return results

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Give each row's last hidden states (n, H) float32."""
        if not self._recipe.pooling:
            raise TypeError("this checkpoint pools nothing")
        results = [np.empty((0, 0), dtype=np.float32)] * len(batch)

        def put(start: int, rows: Sequence[Row], outputs: list[FloatArray]) -> None:
            results[start : start + len(rows)] = own_states(rows, outputs[0])

        if too_large := self._run(batch, put, self._states):
            raise RowsTooLarge(results, too_large)
        return results

    def memory(self) -> dict[str, int]:
        """Give bytes in use, by kind; any thread may ask."""
        return memory_in_use()

    def close(self) -> None:
        """Let go of the weights and of the buffers kept."""
        del self._network
        mx.clear_cache()

    def _first(self, batch: Sequence[Row], shape: tuple[int, ...]) -> FloatArray:
        """Give the first output, of this shape a row."""
        results = np.full((len(batch), *shape), np.nan, dtype=np.float32)

        def put(start: int, rows: Sequence[Row], outputs: list[FloatArray]) -> None:
            results[start : start + len(rows)] = outputs[0]

        if too_large := self._run(batch, put):
            raise RowsTooLarge(results, too_large)
        return results

    def _run(self, batch: Sequence[Row], put: _Put, forward: _Forward | None = None) -> list[int]:
        """Run the batch in parts that fit; ``put`` is given each with its first index. Give the rows that don't fit."""
        too_large: list[int] = []

        def run(start: int, rows: Sequence[Row]) -> None:
            put(start, rows, (forward or self._forward)(rows))

        with mx.stream(self._stream):
            for start, rows in in_parts(batch, _LENGTH_STEP[self._device]):
                self._fill(run, start, rows, too_large)
        return too_large

    def _fill(
        self, run: Callable[[int, Sequence[Row]], None], start: int, rows: Sequence[Row], too_large: list[int]
    ) -> None:
        """Run the rows, in two halves where all of them don't fit, down to one; note those that don't fit alone."""
        try:
            run(start, rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            mx.clear_cache()
            if len(rows) == 1:
                too_large.append(start)
                return
        else:
            return
        half = len(rows) // 2
        self._fill(run, start, rows[:half], too_large)
        self._fill(run, start + half, rows[half:], too_large)

    def _forward(self, rows: Sequence[Row]) -> list[FloatArray]:
        if not self._network.shares_prefixes:
            return self._padded(rows)
        parts = []
        groups = group_by_prefix(rows)
        for group in groups:
            own = [rows[at] if not group.length else _after(rows[at], group.length) for at in group.rows]
            parts.append(self._padded(own, rows[group.rows[0]].ids[: group.length])[0])
        found = np.concatenate(parts)
        found[np.concatenate([group.rows for group in groups])] = found.copy()
        return [found]

    def _padded(self, rows: Sequence[Row], head: Sequence[int] = ()) -> list[FloatArray]:
        return _computed(self._network(self._pad(rows), head))

    def _states(self, rows: Sequence[Row]) -> list[FloatArray]:
        return _computed([self._network.hidden(self._pad(rows))])

    def _pad(self, rows: Sequence[Row]) -> Padded:
        longest = max(len(row.ids) for row in rows)
        length = rounded_length(longest, _LENGTH_STEP[self._device], self._recipe.max_tokens)
        return pad(rows, self._recipe.pad_token_id or 0, length)

    def _compared(self, batch: Sequence[Row]) -> FloatArray:
        """Answer in a form in which two precisions can be compared."""
        if not self._recipe.outputs:
            return self.score(batch)
        parts: list[FloatArray] = []
        self._run(batch, lambda _, rows, outputs: parts.append(comparable(outputs, rows)))
        return stack(parts)

    def _open(self, request: OpenRequest) -> tuple[str, str]:
        """Load in the precision asked for, or the best that keeps the numbers; say which, and why."""
        quantization = read_quantization(request.folder)
        if request.dtype == "int8":
            raise EngineUnavailable("the MLX engine has no int8; quantise the model: nearfar convert MODEL --bits 8")
        if quantization:
            mode = quantization.get("mode", "affine")
            said = f"{quantization['bits']} bit {mode}"
            self._load(request, None if request.dtype == "auto" else _DTYPES[request.dtype])
            return said, "as the weights were saved" if request.dtype == "auto" else f"computing in {request.dtype}"
        if request.dtype != "auto":
            self._load(request, _DTYPES[request.dtype])
            return request.dtype, "requested"
        self._load(request, mx.float32)
        if self._device == "cpu":
            return "float32", "auto: half precision is slower on a processor"
        if not request.probes:
            return "float32", "auto: nothing to compare another precision on"
        exact = self._compared(request.probes)
        losses = []
        for dtype in ("float16", "bfloat16"):
            self._load(request, _DTYPES[dtype])
            loss = measure_loss(exact, self._compared(request.probes))
            if loss.is_small:
                return dtype, f"auto: {loss}"
            losses.append(f"{dtype}: {loss}")
        self._load(request, mx.float32)
        return "float32", f"auto: half precision would lose too much: {'; '.join(losses)}"

    def _load(self, request: OpenRequest, dtype: mx.Dtype | None) -> None:
        if hasattr(self, "_network"):
            del self._network  # never two copies of a large model
        self._network = load_network(request, dtype)[0]


def _computed(answers: list[mx.array]) -> list[FloatArray]:
    mx.eval(answers)  # nothing lazy leaves this thread: another one has no stream to compute it on
    return [np.array(answer, dtype=np.float32) for answer in answers]


def _after(row: Row, head: int) -> Row:
    """Leave out a row's head; nothing that shares one knows types."""
    return Row(row.ids[head:], None, row.token_count, row.truncated_tokens)


def _device(asked: Device) -> str:
    """Name the device: Metal where there is one. Raises EngineUnavailable when it isn't there."""
    there = mx.metal.is_available()
    if asked == "mps" and not there:
        raise EngineUnavailable("mlx sees no GPU on this machine; use --device cpu")
    return "mps" if there and asked != "cpu" else "cpu"
