"""Loads a checkpoint and chooses precision, kernels, packing or padding, and threads.

Every choice is measured on this machine. A faster path is only used if it returns the numbers of the plain one: padded
batches through transformers' own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nearfar.core.errors import EngineUnavailable
from nearfar.core.types import Batching, FloatArray
from nearfar.engines.base import OpenRequest
from nearfar.engines.common.precision import PrecisionLoss, flatten_outputs, measure_loss, stack
from nearfar.engines.common.prefixes import MIN_PREFIX_TOKENS, common_prefix_length
from nearfar.engines.torch.choices import (
    CORES,
    LENGTH_STEP,
    DtypeChoice,
    Parallelism,
    TorchDtype,
    choose_dtype,
    find_device,
    split_cores,
)
from nearfar.engines.torch.linears import LinearTimes, prepack, time_linears
from nearfar.engines.torch.packing import PackedModel
from nearfar.engines.torch.padded import PaddedModel
from nearfar.engines.transformer.length_dependence import depends_on_longest
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.tokenization.row import Row

_KERNEL_ROWS = 32  # oneDNN keeps a kernel for each token count, 0.7 GB in all; so counts are rounded up
_PROBE_BATCH = 8
_MAX_TOKENS = 32  # of a row: enough to see a difference, and large models open quickly
_CHECKED_PROBES = 9  # about so many of them
_SHORT_LENGTHS = (1, 2, 3)  # of more rows: in such short ones a neighbor that leaks in reaches all tokens
_RANDOM_LENGTHS = (5, 9, 9, 2, 16, 32)  # of rows where there are no probes
# How far two implementations may differ, relative to the largest row's norm. Rounding makes a hundredth of it.
_TOLERANCE = {torch.float32: 5e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}

TimeLinears: TypeAlias = "Callable[[torch.nn.Module, torch.dtype], LinearTimes]"


class Opened(NamedTuple):
    """A loaded model and how it runs."""

    model: PackedModel | PaddedModel
    device: str
    choice: DtypeChoice
    parallelism: Parallelism
    batching: Batching | None


def open_checkpoint(request: OpenRequest, measure: TimeLinears = time_linears) -> Opened:
    """Load the checkpoint, and choose how it runs by what ``measure`` returns on one core.

    Raises a SetupError for files or a device it can't work with.
    """
    device = find_device(request.device)
    cores = request.threads or CORES
    torch.set_num_threads(cores)
    model, choice = _load(request, device, measure)
    dtype = getattr(torch, choice.dtype)
    # Such a model is changed by each forward, so none may run beside another.
    depends = depends_on_longest(model, request.recipe.max_tokens)
    batching: Batching | None = "equal lengths" if depends else None
    if device != "cpu":
        return Opened(_padded(request, model, device, dtype), device, choice, Parallelism(1, cores), batching)
    times = _on_one_core(measure, model, dtype)
    runner = _padded_or_packed(request, model, dtype, prepacked=times.prefers_prepacked)
    parallelism = Parallelism(1, cores) if depends else split_cores(cores, times.text_s)
    return Opened(runner, device, choice, parallelism, batching)


def _padded(request: OpenRequest, model: Any, device: str, dtype: torch.dtype) -> PaddedModel:
    """Return the model for a GPU; lengths are only rounded up where padding leaves the numbers alone."""
    if _has_other_outputs(request):
        return PaddedModel(model, request.recipe, device, LENGTH_STEP[device])
    rows = check_rows(request, model.config.vocab_size)
    plain = PaddedModel(model, request.recipe, device)
    rounded = PaddedModel(model, request.recipe, device, LENGTH_STEP[device])
    return rounded if returns_same(_each_alone(plain, rows), rounded, rows, dtype) else plain


def _has_other_outputs(request: OpenRequest) -> bool:
    """Return whether the model returns more than one vector, or one logit, per text."""
    return request.recipe.task == "embed" and request.recipe.outputs != ("dense",)


def _each_alone(model: PaddedModel, rows: Sequence[Row]) -> Tensor:
    """Return the results of rows that run one by one: no padding and no neighbor can change them."""
    with torch.inference_mode():
        return torch.cat([model([row]) for row in rows])


def _padded_or_packed(
    request: OpenRequest, model: Any, dtype: torch.dtype, *, prepacked: bool
) -> PackedModel | PaddedModel:
    """Return the model with the fastest path on a CPU that returns the plain path's numbers."""
    if _has_other_outputs(request):
        return PaddedModel(model, request.recipe, "cpu")
    rows = check_rows(request, model.config.vocab_size)
    plain = PaddedModel(model, request.recipe, "cpu")
    expected = _each_alone(plain, rows)
    if prepacked:
        prepack(model)
        if not returns_same(expected, lambda rows: _each_alone(plain, rows), rows, dtype):
            model = load_transformer(request, dtype)
    packed = PackedModel(model, request.recipe, _KERNEL_ROWS if prepacked or dtype != torch.float32 else 1)
    if not returns_same(expected, packed, rows, dtype):
        packed.undo()
        return PaddedModel(model, request.recipe, "cpu")
    packed.shares_prefixes = _can_share_prefixes(packed, request, rows, dtype)
    return packed


def _load(request: OpenRequest, device: str, measure: TimeLinears) -> tuple[Any, DtypeChoice]:
    """Load in the requested precision; or in float32, and then compare lower ones with it."""
    if request.dtype == "int8":
        raise EngineUnavailable("engine 'torch' has no int8; use engine = \"openvino\" for it, or another dtype")
    if request.dtype != "auto":
        return load_transformer(request, getattr(torch, request.dtype)), DtypeChoice(request.dtype, "requested")
    loaded: dict[str, Any] = {"float32": load_transformer(request, torch.float32)}
    exact = None

    def embed_probes(model: Any) -> FloatArray:
        padded, parts = PaddedModel(model, request.recipe, device), []
        for at in range(0, len(request.probes), _PROBE_BATCH):  # one batch would be as long as the longest
            rows = request.probes[at : at + _PROBE_BATCH]
            with torch.inference_mode():
                arrays = [output.cpu().numpy() for output in padded.outputs(rows)]
            parts.append(flatten_outputs(arrays, rows) if request.recipe.outputs else arrays[0])
        return stack(parts)

    def loss_of(dtype: TorchDtype) -> PrecisionLoss:
        nonlocal exact
        if exact is None:
            exact = embed_probes(loaded["float32"])
        loaded.clear()  # a large model must not be in memory twice
        loaded[dtype] = load_transformer(request, getattr(torch, dtype))
        return measure_loss(exact, embed_probes(loaded[dtype]), request.recipe.outputs, request.probes)

    def speedup() -> float:
        plain, rounded = (_on_one_core(measure, loaded["float32"], of) for of in (torch.float32, torch.bfloat16))
        return plain.best / rounded.best

    choice = choose_dtype(device, speedup, loss_of, has_probes=bool(request.probes))
    return loaded.get(choice.dtype) or load_transformer(request, getattr(torch, choice.dtype)), choice


def _can_share_prefixes(packed: PackedModel, request: OpenRequest, rows: Sequence[Row], dtype: torch.dtype) -> bool:
    """Return whether the numbers stay the same when a common prefix is computed once."""
    own_tokens = min(request.recipe.max_tokens - MIN_PREFIX_TOKENS, MIN_PREFIX_TOKENS)
    if not packed.can_share_prefixes or own_tokens < 1:
        return False
    prefix = (rows[0].ids * MIN_PREFIX_TOKENS)[:MIN_PREFIX_TOKENS]
    with_prefix = [Row([*prefix, *row.ids[-own_tokens:]], None, 0, 0) for row in rows]
    with torch.inference_mode():
        expected = packed(with_prefix)
    packed.shares_prefixes = True
    return returns_same(expected, packed, with_prefix, dtype)


def _on_one_core(measure: TimeLinears, model: Any, dtype: torch.dtype) -> LinearTimes:
    """Measure on one core: with several, another process on one of them would distort the times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = measure(model, dtype)
    torch.set_num_threads(threads)
    return times


def check_rows(request: OpenRequest, vocabulary: int) -> list[Row]:
    """Return the beginnings of the probes, or rows of seeded random ids if there are none.

    Most of a prefix that all probes share, such as an LLM reranker's instruction, is left out: rows must differ.
    """
    limit = min(_MAX_TOKENS, request.recipe.max_tokens)
    if request.probes:
        by_ids = sorted(request.probes, key=lambda row: row.ids)
        start = max(common_prefix_length(by_ids[0], by_ids[-1]) - limit // 2, 0)
        cut = slice(start, start + limit)
        some = request.probes[:: max(len(request.probes) // _CHECKED_PROBES, 1)]
        rows = [row.cut(cut) for row in some]
        return rows + [rows[0].cut(slice(n)) for n in _SHORT_LENGTHS]
    numbers = np.random.default_rng(20)
    rows = []
    for length in (min(length, limit) for length in _RANDOM_LENGTHS):
        ids = numbers.integers(vocabulary, size=length).tolist()
        types = [0] * (length // 2) + [1] * (length - length // 2) if request.recipe.type_ids else None
        rows.append(Row(ids, types, length, 0))
    return rows


def returns_same(
    expected: Tensor, run: Callable[[Sequence[Row]], Tensor], rows: Sequence[Row], dtype: torch.dtype
) -> bool:
    """Return whether ``run`` can run the rows, and returns the ``expected`` numbers within rounding."""
    try:
        with torch.inference_mode():
            found = run(rows)
    except Exception:  # noqa: BLE001 — an architecture that it doesn't suit may raise anything from its modules
        return False
    difference = (found - expected).reshape(len(rows), -1).norm(dim=1).max()
    return bool(difference <= _TOLERANCE[dtype] * expected.reshape(len(rows), -1).norm(dim=1).max())
