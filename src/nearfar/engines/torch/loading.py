"""Opening a checkpoint: in which precision, with which kernels, packed or padded, on how many threads.

Every choice is measured on the machine at hand, and a faster way is taken only where it was seen to give the numbers
of the plain one: padded batches through transformers' own modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.common.precision import measure_loss
from nearfar.engines.common.representations import comparable
from nearfar.engines.torch.devices import CORES, LENGTH_STEP, Share, find_device, share
from nearfar.engines.torch.linears import LinearTimes, prepack, time_linears
from nearfar.engines.torch.packing import PackedModel
from nearfar.engines.torch.padded import PaddedModel
from nearfar.engines.torch.precision_choice import DtypeChoice, choose_dtype
from nearfar.engines.torch.trial import gives, sharing_rows, trial_rows
from nearfar.engines.transformer.module import load_transformer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from nearfar.core.types import FloatArray
    from nearfar.engines.base import OpenRequest
    from nearfar.engines.common.precision import Loss
    from nearfar.engines.torch.precision_choice import Name
    from nearfar.models.tokenization.row import Row

_KERNEL_ROWS = 32  # oneDNN keeps a kernel for every count of tokens it meets, 0.7 GB in all; so they are rounded up

Forward: TypeAlias = "Callable[[Sequence[Row]], Tensor]"
Outputs: TypeAlias = "Callable[[Sequence[Row]], Sequence[Tensor]]"
Hidden: TypeAlias = "Callable[[Sequence[Row]], list[Tensor]]"
Measure: TypeAlias = "Callable[[torch.nn.Module, torch.dtype], LinearTimes]"


class Opened(NamedTuple):
    """What came of it. ``run`` gives vectors or logits; ``outputs`` all that a text becomes, where that is more.

    ``hidden`` gives each row's last hidden states. ``shares_prefixes`` tells of beginnings that rows share.
    """

    run: Forward
    outputs: Outputs | None
    hidden: Hidden
    device: str
    choice: DtypeChoice
    packed: bool
    share: Share
    shares_prefixes: bool = False


def open_checkpoint(request: OpenRequest, measure: Measure = time_linears) -> Opened:
    """Load the checkpoint and settle how it is run, by what ``measure`` finds on one core.

    Raises SetupError for files or a device it can't work with.
    """
    device = find_device(request.device)
    cores = request.threads or CORES
    torch.set_num_threads(cores)
    model, choice = _load(request, device, measure)
    if device != "cpu":
        padded = PaddedModel(model, request.recipe, device, LENGTH_STEP[device])
        return _padded(padded, device, choice, Share(1, cores))
    dtype = getattr(torch, choice.dtype)
    times = _on_one_core(measure, model, dtype)
    if request.recipe.task == "embed" and request.recipe.outputs != ("dense",):
        return _padded(PaddedModel(model, request.recipe, device), device, choice, share(cores, times.text_s))
    rows = trial_rows(request, model.config.vocab_size)
    expected = _exactly(model, request, rows)
    if times.swap:
        prepack(model)
        if not gives(expected, PaddedModel(model, request.recipe, device), rows, dtype):
            model = load_transformer(request, dtype)
    packed = PackedModel(model, request.recipe, _KERNEL_ROWS if times.swap or dtype != torch.float32 else 1)
    fits = gives(expected, packed, rows, dtype)
    if not fits:
        packed.undo()
        return _padded(PaddedModel(model, request.recipe, device), device, choice, share(cores, times.text_s))
    packed.shares_prefixes = _may_share(packed, request, rows, dtype)
    cores_of = share(cores, times.text_s)
    return Opened(
        packed, None, packed.hidden, device, choice, packed=True, share=cores_of, shares_prefixes=packed.shares_prefixes
    )


def _padded(padded: PaddedModel, device: str, choice: DtypeChoice, share: Share) -> Opened:
    return Opened(padded, padded.outputs, padded.hidden, device, choice, packed=False, share=share)


def _load(request: OpenRequest, device: str, measure: Measure) -> tuple[Any, DtypeChoice]:
    """Load in the precision asked for; or in float32, to find out what a lower one loses."""
    if request.dtype == "int8":
        raise EngineUnavailable("engine 'torch' has no int8; take engine = \"openvino\" for it, or another dtype")
    if request.dtype != "auto":
        return load_transformer(request, getattr(torch, request.dtype)), DtypeChoice(request.dtype, "requested")
    loaded: dict[str, Any] = {"float32": load_transformer(request, torch.float32)}
    exact = None

    def answers(model: Any) -> FloatArray:
        with torch.inference_mode():
            found = PaddedModel(model, request.recipe, device).outputs(request.probes)
        arrays = [output.cpu().numpy() for output in found]
        return comparable(arrays, request.probes) if request.recipe.outputs else arrays[0]

    def try_out(name: Name) -> Loss:
        nonlocal exact
        if exact is None:
            exact = answers(loaded["float32"])
        loaded.clear()  # never two copies of a large model
        loaded[name] = load_transformer(request, getattr(torch, name))
        return measure_loss(exact, answers(loaded[name]))

    def speed() -> float:
        exactly, rounded = (_on_one_core(measure, loaded["float32"], of) for of in (torch.float32, torch.bfloat16))
        return exactly.best / rounded.best

    choice = choose_dtype(device, speed, has_probes=bool(request.probes), try_out=try_out)
    return loaded.get(choice.dtype) or load_transformer(request, getattr(torch, choice.dtype)), choice


def _may_share(packed: PackedModel, request: OpenRequest, rows: Sequence[Row], dtype: torch.dtype) -> bool:
    """Tell whether beginnings that rows have in common may be computed once: whether the numbers stay as they are."""
    alike = sharing_rows(rows, request.recipe.max_tokens) if packed.can_share else []
    if not alike:
        return False
    with torch.inference_mode():
        expected = packed(alike)
    packed.shares_prefixes = True
    return gives(expected, packed, alike, dtype)


def _exactly(model: Any, request: OpenRequest, rows: Sequence[Row], device: str = "cpu") -> Tensor:
    with torch.inference_mode():
        return PaddedModel(model, request.recipe, device)(rows)


def _on_one_core(measure: Measure, model: Any, dtype: torch.dtype) -> LinearTimes:
    """Time there: where another process has one of several cores, times on all of them tell nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = measure(model, dtype)
    torch.set_num_threads(threads)
    return times
