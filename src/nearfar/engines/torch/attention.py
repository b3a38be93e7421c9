"""Attention over rows packed end to end: each token attends within its own row, as its architecture's mask allows.

Registered with transformers, so one function serves every architecture that attends through its registry. Rows are
sorted by length, and each run of equal lengths is one call on an unpadded (n, heads, L, d). Rows with a common prefix
have it once in the batch, and attend to it as if it were their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "nearfar_packed"
_ON_DEVICE = "nearfar_on_device"
# Terms that some architectures add to attention scores, and this function doesn't.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
# Keys per call for rows with a prefix, which is copied before each of them: 32 MB for 16 heads of 128. A guess.
_MAX_KEYS = 4096


class Run(Struct, frozen=True):
    """Rows of one length, adjacent in the packed batch."""

    # The first row's first token.
    start: int
    # The number of rows, and their length, without the prefix.
    count: int
    length: int
    # The run, of one row, that each of them continues.
    prefix: Run | None = None

    @property
    def end(self) -> int:
        """Return the token after the last row's last one."""
        return self.start + self.count * self.length

    @property
    def key_length(self) -> int:
        """Return how many tokens a row's last token may attend to."""
        return self.length + (self.prefix.length if self.prefix else 0)

    def rows(self, packed: Tensor) -> Tensor:
        """Return the rows' part of (T, …), as (count, length, …)."""
        return packed[self.start : self.end].view(self.count, self.length, *packed.shape[1:])

    def split(self) -> Iterator[Run]:
        """Yield runs of fewer rows, so that prefixes copied before each row's keys stay within _MAX_KEYS."""
        limit = max(_MAX_KEYS // self.key_length, 1)
        for at in range(0, self.count, limit):
            yield Run(self.start + at * self.length, min(limit, self.count - at), self.length, self.prefix)


class MaskPattern:
    """An architecture's attention mask as a function of positions: causal, full, or within a window."""

    def __init__(self, mask_function: Callable[..., Tensor]) -> None:
        self._mask_function = mask_function
        self._masks: dict[tuple[int, int], Tensor | None] = {}

    def mask(self, run: Run, device: torch.device) -> Tensor | None:
        """Return the (L, prefix + L) mask of the run's rows, None if every token attends to every other one.

        Raises TypeError if a prefix would attend to what follows it, and so differ between rows.
        """
        shape = run.length, run.key_length
        if shape not in self._masks:
            positions = torch.arange(run.key_length, device=device)
            zero = torch.zeros((), dtype=torch.long, device=device)
            mask = self._mask_function(zero, zero, positions[:, None], positions[None])
            mask = mask.expand(run.key_length, run.key_length)
            prefix = run.key_length - run.length
            if mask[:prefix, prefix:].any():
                raise TypeError("this architecture's tokens attend to those after them")
            self._masks[shape] = None if bool(mask[prefix:].all()) else mask[prefix:]
        return self._masks[shape]


def _keep_pattern(*, mask_function: Callable[..., Tensor], **_rest: object) -> MaskPattern:
    """Replace transformers' mask creation: (T, T) for the packed batch would be almost empty."""
    return MaskPattern(mask_function)


def _attend(  # noqa: PLR0913 — transformers' signature
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    *,
    runs: Sequence[Run],
    scaling: float | None = None,
    **rest: object,
) -> tuple[Tensor, None]:
    """Attend run by run: query (1, h, T, d), key and value (1, h or fewer, T, d) → (1, T, h, d).

    ``runs`` cover all tokens in their order. A sliding window is in the mask; its size in ``rest`` isn't needed.
    """
    unsupported = [name for name in _UNSUPPORTED if rest.get(name) is not None]
    if unsupported or not isinstance(attention_mask, MaskPattern):
        raise TypeError("this architecture's attention isn't supported")
    heads = query.shape[1]
    if key.shape[1] != heads:  # grouped-query attention: several heads share a key and value
        key = key.repeat_interleave(heads // key.shape[1], dim=1)
        value = value.repeat_interleave(heads // value.shape[1], dim=1)
    query, key, value = (packed[0].transpose(0, 1) for packed in (query, key, value))  # (T, h, d) each
    outputs = []
    for run in runs:
        mask = attention_mask.mask(run, query.device)
        for part in run.split() if run.prefix else (run,):
            q, k, v = (part.rows(packed).transpose(1, 2) for packed in (query, key, value))  # (n, h, L, d) each
            if part.prefix:
                k, v = _prepend(part.prefix, key, k), _prepend(part.prefix, value, v)
            attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
            outputs.append(attended.transpose(1, 2).flatten(0, 1))  # (n · L, h, d)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None], None


def _prepend(prefix: Run, packed: Tensor, own: Tensor) -> Tensor:
    """Concatenate the prefix's keys or values and each row's own (n, h, L, d) to (n, h, prefix + L, d)."""
    return torch.cat([prefix.rows(packed).transpose(1, 2).expand(own.shape[0], -1, -1, -1), own], dim=2)


def register() -> str:
    """Register both functions with transformers and return their name there. May be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _keep_pattern)
    return NAME


def keep_masks_on_device(model: Any) -> None:
    """Make the model build its attention masks without waiting for the device.

    transformers reads back whether a batch has padding, to call SDPA without a mask if it has none. Batches for a GPU
    are padded nearly always, and the GPU would be idle until the next kernels arrive. Other attention than SDPA stays.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def always_mask(**options: Any) -> Tensor | None:
        mask: Tensor | None = sdpa_mask(
            **{**options, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        )
        return mask

    if model.config._attn_implementation == "sdpa":  # noqa: SLF001 — has a setter but no other getter
        AttentionInterface.register(_ON_DEVICE, sdpa_attention_forward)
        AttentionMaskInterface.register(_ON_DEVICE, always_mask)
        model.base_model.set_attn_implementation(_ON_DEVICE)
