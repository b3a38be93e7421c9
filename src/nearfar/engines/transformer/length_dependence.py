"""Architectures with numbers that depend on the longest text of a batch, or on texts that ran before.

Rotary positions of the types dynamic and longrope change beyond a length, for all rows of a batch, and dynamic ones for
later batches as well. BigBird's sparse attention becomes full for good after the first short text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

_ROTARY_STATE = ("inv_freq", "max_seq_len_cached", "attention_scaling")


def depends_on_longest(model: nn.Module, max_tokens: int) -> bool:
    """Return whether a text of up to ``max_tokens`` may change the numbers of a shorter one in its batch."""
    return any(max_tokens > limit for limit in _rotary_limits(model))


def forget_earlier_texts(model: nn.Module, max_tokens: int) -> None:
    """Restore before each forward what an earlier one may have changed; BigBird's attention starts as it ends, full."""
    base: Any = getattr(model, "base_model", model)
    if hasattr(base, "set_attention_type"):
        base.set_attention_type("original_full")
    for module in _rotary_modules(model) if depends_on_longest(model, max_tokens) else ():
        module.register_forward_pre_hook(_RestoreRotary(module))


class _RestoreRotary:
    """Restores the frequencies of short texts, and the length for which they were computed."""

    def __init__(self, module: Any) -> None:
        names = [*vars(module), *dict(module.named_buffers(recurse=False))]
        state = {name: getattr(module, name) for name in names if name.endswith(_ROTARY_STATE)}
        self._state = {name: one.clone() if isinstance(one, Tensor) else one for name, one in state.items()}

    def __call__(self, module: Any, _inputs: object) -> None:
        for name, value in self._state.items():
            is_array = isinstance(value, Tensor)
            setattr(module, name, value.to(getattr(module, name).device, copy=True) if is_array else value)


def _rotary_modules(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if any(_changes(kind) for kind in _kinds(module)):
            yield module


def _rotary_limits(model: nn.Module) -> Iterator[int]:
    for module in _rotary_modules(model):
        parameters = getattr(module.config, "rope_parameters", None) or {}
        nested = [one for one in parameters.values() if isinstance(one, dict)] or [parameters]
        for one in nested:
            if _changes(one.get("rope_type", "")):
                yield one.get("original_max_position_embeddings") or module.config.max_position_embeddings


def _kinds(module: Any) -> list[str]:
    kinds = getattr(module, "rope_type", "")
    return [str(kind) for kind in kinds.values()] if isinstance(kinds, dict) else [str(kinds)]


def _changes(kind: str) -> bool:
    return "dynamic" in kind or kind == "longrope"
