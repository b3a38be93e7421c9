"""Which precision ``dtype = "auto"`` means on this machine. Pure: timings and losses in, a decision out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from nearfar.engines.common.precision import Loss

Name = Literal["float32", "float16", "bfloat16"]  # what torch computes in
_WORTH_IT = 1.5  # how many times as fast as float32 a lower precision has to be on a processor
# A GPU computes these at twice the speed or more; float16 first, it has three more bits for the same width.
_ON_DEVICE: dict[str, tuple[Name, ...]] = {"cuda": ("float16", "bfloat16"), "mps": ("float16",)}


class DtypeChoice(NamedTuple):
    """A precision and in one phrase why."""

    dtype: Name
    reason: str


def choose_dtype(
    device: str, speed: Callable[[], float], has_probes: bool, try_out: Callable[[Name], Loss]
) -> DtypeChoice:
    """Take the first precision worth trying that the probes show to lose little, else float32.

    ``speed`` tells how many times as fast as float32 a processor is in bfloat16; ``try_out`` what a precision loses.
    """
    if not has_probes:
        return DtypeChoice("float32", "there were no texts to try a lower precision on")
    lead = "the usual precision of the device"
    candidates = _ON_DEVICE.get(device, ())
    if device == "cpu":
        times = speed()
        lead = f"{times:.1f} times as fast as float32 here"
        if times < _WORTH_IT:
            return DtypeChoice("float32", f"bfloat16 is {lead}, and {_WORTH_IT} would be worth it")
        candidates = ("bfloat16",)
    refused: list[str] = []
    for name in candidates:
        loss = try_out(name)
        if loss.is_small:
            return DtypeChoice(name, "; ".join([*refused, f"{lead}; {loss}"]))
        refused.append(f"{name} loses too much: {loss}")
    return DtypeChoice("float32", "; ".join(refused))
