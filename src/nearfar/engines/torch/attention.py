"""Attention over rows laid end to end: each token sees its own row, as its family's mask would let it.

Enters transformers by its two registries, so that it is one function for every architecture that attends through them.
Rows come sorted by length, and every run of equal lengths is one call on an unpadded (n, heads, L, d). Rows that begin
alike may have a head in common, which is laid once, apart from them: they see it as if it were their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "nearfar_rows"
# What some families add to the scores of attention, and this function doesn't.
_UNKNOWN = ("softcap", "s_aux", "position_bias")
# Keys that are laid side by side for one call where rows have a head: 32 MB for 16 heads of 128. A guess.
_KEYS = 4096


class Run(Struct, frozen=True):
    """Rows of one length that lie next to each other: ``count`` of them from token ``start`` on.

    They may go on from a ``head``, a run of one row; ``length`` doesn't count it.
    """

    start: int
    count: int
    length: int
    head: Run | None = None

    @property
    def seen(self) -> int:
        """Count the tokens that a row's last one may see."""
        return self.length + (self.head.length if self.head else 0)

    @property
    def tokens(self) -> slice:
        """Give their place on the axis of tokens."""
        return slice(self.start, self.start + self.count * self.length)

    def rows(self, flat: Tensor) -> Tensor:
        """Cut them out of (T, …), as (count, length, …)."""
        return flat[self.tokens].view(self.count, self.length, *flat.shape[1:])


class Pattern:
    """Which token sees which, as the family's own function of positions: causal, all, or within a window."""

    def __init__(self, sees: Callable[..., Tensor]) -> None:
        self._sees = sees
        self._known: dict[tuple[int, int], Tensor | None] = {}

    def of(self, run: Run, device: torch.device) -> Tensor | None:
        """Give the (L, head + L) mask of a row of the run, None where every token sees every other one.

        Raises TypeError for a head that would see what comes after it: it can't be the same for several rows.
        """
        shape = run.length, run.seen
        if shape not in self._known:
            at = torch.arange(run.seen, device=device)
            zero = torch.zeros((), dtype=torch.long, device=device)
            whole = self._sees(zero, zero, at[:, None], at[None]).expand(run.seen, run.seen)
            head = run.seen - run.length
            if whole[:head, head:].any():
                raise TypeError("tokens of this family see those after them")
            mask = whole[head:]
            self._known[shape] = None if bool(mask.all()) else mask
        return self._known[shape]


def _keep_pattern(*, mask_function: Callable[..., Tensor], **_rest: object) -> Pattern:
    """Stand where transformers makes a mask for the whole of the tokens, T by T, of which most would be empty."""
    return Pattern(mask_function)


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
    """Attend row by row. query (1, h, T, d), key and value (1, h or fewer, T, d) → (1, T, h, d).

    A sliding window is in the pattern; the number that also arrives in ``rest`` isn't needed.
    """
    if not isinstance(attention_mask, Pattern) or any(rest.get(name) is not None for name in _UNKNOWN):
        raise TypeError("this family attends in a way that isn't known here")
    flat = [_repeat(of[0], query.shape[1]).transpose(0, 1) for of in (query, key, value)]  # (T, h, d) each
    found = []
    for run in runs:
        mask = attention_mask.of(run, query.device)
        for some in _parts(run):
            q, k, v = (some.rows(of).transpose(1, 2) for of in flat)  # (n, h, L, d) each
            if some.head:
                k, v = (_behind(some.head, of, own) for of, own in zip(flat[1:], (k, v), strict=True))
            attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
            found.append(attended.transpose(1, 2).flatten(0, 1))  # (n · L, h, d)
    return (found[0] if len(found) == 1 else torch.cat(found))[None], None


def _parts(run: Run) -> Iterator[Run]:
    """Cut a run with a head into runs of fewer rows: for each row the head's keys are laid before its own."""
    most = max(_KEYS // run.seen, 1) if run.head else run.count
    for at in range(0, run.count, most):
        yield Run(run.start + at * run.length, min(most, run.count - at), run.length, run.head)


def _behind(head: Run, flat: Tensor, own: Tensor) -> Tensor:
    """Lay a head's (T, h, d) before each row's own (n, h, L, d): → (n, h, head + L, d)."""
    before = head.rows(flat).transpose(1, 2).expand(own.shape[0], -1, -1, -1)
    return torch.cat([before, own], dim=2)


def _repeat(of: Tensor, heads: int) -> Tensor:
    """Give each of the query's heads its key or value (h, T, d): several share one where they are grouped."""
    return of if of.shape[0] == heads else of.repeat_interleave(heads // of.shape[0], dim=0)


def register() -> str:
    """Make the two functions known to transformers and give their name there; again is no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _keep_pattern)
    return NAME
