"""Rows packed end to end instead of padded: the transformer runs once, on all tokens of the batch as one row.

Positions restart with every row and attention stays within it, so the numbers are those of a padded batch. What follows
the transformer gets its hidden states by runs of equal lengths, which need no padding either. For decoders that pool
the last token, a prefix that rows have in common is packed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor, nn

from nearfar.engines.common.prefixes import PrefixGroup, group_by_prefix
from nearfar.engines.torch.attention import Run, register
from nearfar.engines.transformer.heads import PoolingHead, squeeze_logits
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row

Ids = npt.NDArray[np.int64]
_FILLER = Row([0], None, 0, 0)


class PackedBatch(Struct, frozen=True, kw_only=True):
    """A batch end to end: each group's prefix, then its rows, shortest first."""

    # (T,) each; ``types`` is None where all are 0.
    ids: Ids
    positions: Ids
    types: Ids | None
    # Prefixes, rows and filler together cover all tokens, in this order.
    segments: list[Run]
    # Rows without prefixes, and each row's index in the batch.
    runs: list[Run]
    order: list[int]


def pack(
    batch: Sequence[Row],
    position_offset: int | None = None,
    groups: Sequence[PrefixGroup] = (),
    multiple: int = 1,
) -> PackedBatch:
    """Pack the rows, those of a group after their common prefix; without ``groups`` each row is whole.

    ``position_offset`` is the padding id of an architecture that counts positions from there (RoBERTa). Rows of one
    token, which no run contains, fill the batch up to a ``multiple`` of tokens.
    """
    lengths = [len(row.ids) for row in batch]
    segments: list[Run] = []
    runs: list[Run] = []
    order: list[int] = []
    pieces: list[tuple[Row, int, int]] = []  # from which of its tokens to which
    end = 0
    for group in groups or [PrefixGroup(length=0, rows=list(range(len(batch))))]:
        prefix = None
        if group.length:
            prefix = Run(end, 1, group.length)
            pieces.append((batch[group.rows[0]], 0, group.length))
            segments.append(prefix)
            end = prefix.end
        rows = sorted(group.rows, key=lengths.__getitem__)
        for length, same in groupby(rows, key=lengths.__getitem__):
            run = Run(end, len(list(same)), length - group.length, prefix)
            runs.append(run)
            segments.append(run)
            end = run.end
        order += rows
        pieces += [(batch[at], group.length, lengths[at]) for at in rows]
    if missing := -end % multiple:
        segments.append(Run(end, missing, 1))
        pieces += [(_FILLER, 0, 1)] * missing
    ids, positions, types = _concatenate(pieces, end + missing, position_offset)
    return PackedBatch(ids=ids, positions=positions, types=types, segments=segments, runs=runs, order=order)


def _concatenate(
    pieces: Sequence[tuple[Row, int, int]], count: int, position_offset: int | None
) -> tuple[Ids, Ids, Ids | None]:
    """Join pieces of rows to (count,) ids, positions and types."""
    rows, starts, ends = zip(*pieces, strict=True)
    lengths = np.subtract(ends, starts)
    flat_ids = chain.from_iterable([row.ids[start:end] for row, start, end in pieces])
    ids = np.fromiter(flat_ids, np.int64, count)
    types = None
    if any(row.type_ids for row in rows):
        flat = [row.type_ids[start:end] if row.type_ids else [0] * (end - start) for row, start, end in pieces]
        types = np.fromiter(chain.from_iterable(flat), np.int64, count)
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)  # (T,) tokens of earlier pieces
    if position_offset is not None:
        return ids, _offset_positions(ids, before, position_offset), types
    return ids, np.arange(count) - before + np.repeat(starts, lengths), types


def _offset_positions(ids: Ids, before: Ids, padding_id: int) -> Ids:
    """Count from ``padding_id`` + 1; a padding token that is spelled out in a text gets that id as its position."""
    counted = ids != padding_id
    total = np.concatenate([[0], np.cumsum(counted)])  # (T + 1,) counted tokens before each
    positions: Ids = (total[1:] - total[before]) * counted + padding_id
    return positions


class _PrecomputedTransformer(nn.Module):
    """Replaces a classifier's transformer: returns the hidden states that it is given as ``inputs_embeds``."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self._pooler = pooler

    def forward(self, _ids: Tensor | None = None, *, inputs_embeds: Tensor, **_rest: object) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self._pooler(inputs_embeds) if self._pooler else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


class PackedModel:
    """Runs a transformer, and the pooling or the classifier after it, on packed batches.

    Changes the model; ``undo`` restores it. Token counts are rounded up to a ``multiple``. With ``shares_prefixes``,
    which only suits causal models, prefixes that rows have in common are computed once.
    """

    def __init__(self, model: Any, recipe: Recipe, multiple: int = 1) -> None:
        self._multiple = multiple
        self._model = model
        self._base = model.base_model
        self._is_classifier = recipe.task == "score"
        self._attention = model.config._attn_implementation  # noqa: SLF001 — has a setter but no other getter
        self._pooling = PoolingHead(recipe) if recipe.pooling else None
        embeddings: Any = getattr(self._base, "embeddings", None)
        from_ids = hasattr(embeddings, "create_position_ids_from_input_ids")  # the RoBERTa family has it
        self._position_offset: int | None = embeddings.padding_idx if from_ids else None
        self.shares_prefixes = False
        self._skipped_id = recipe.pad_token_id  # a decoder's classifier reads the last token before these
        # Where the result depends on more than a row's last token, it would lack the prefix.
        self.can_share_prefixes = not from_ids and recipe.pooling in {(), ("lasttoken",)}
        self._base.set_attn_implementation(register())
        if self._pooling is None:
            setattr(model, model.base_model_prefix, _PrecomputedTransformer(getattr(self._base, "pooler", None)))

    def undo(self) -> None:
        """Restore the model for padded batches."""
        if self._pooling is None:
            setattr(self._model, self._model.base_model_prefix, self._base)
        self._base.set_attn_implementation(self._attention)

    def __call__(self, batch: Sequence[Row]) -> Tensor:
        """Return vectors (B, D) or logits (B,)."""
        groups = group_by_prefix(batch, self._skipped_id) if self.shares_prefixes else []
        packed = pack(batch, self._position_offset, groups, self._multiple)
        hidden = self._transform(packed)  # (T, H)
        if self._pooling:
            pooled = [self._pooling.pool(rows, _ones(rows)) for rows in (run.rows(hidden) for run in packed.runs)]
            vectors = self._pooling.project(torch.cat(pooled))
            results = squeeze_logits(vectors) if self._is_classifier else vectors
        else:
            ids = torch.from_numpy(packed.ids)
            results = torch.cat([self._classify(run.rows(hidden), run.rows(ids)) for run in packed.runs])
        in_order = torch.empty_like(results)
        in_order[packed.order] = results
        return in_order

    def hidden_states(self, batch: Sequence[Row]) -> list[Tensor]:
        """Return each row's last hidden states (n, H), without sharing prefixes."""
        packed = pack(batch, self._position_offset, multiple=self._multiple)
        states = self._transform(packed).float()
        rows = [row for run in packed.runs for row in run.rows(states)]
        in_order = dict(zip(packed.order, rows, strict=True))
        return [in_order[at] for at in range(len(batch))]

    def _transform(self, packed: PackedBatch) -> Tensor:
        """Return the last hidden states (T, H) of all tokens."""
        ids = torch.from_numpy(packed.ids)[None]  # (1, T)
        types = {} if packed.types is None else {"token_type_ids": torch.from_numpy(packed.types)[None]}
        output = self._base(
            input_ids=ids,
            # All ones, so no mask results; without one, transformers would look for rows in the positions.
            attention_mask=torch.ones(ids.shape, dtype=torch.bool),
            position_ids=torch.from_numpy(packed.positions)[None],
            runs=packed.segments,
            **types,
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _classify(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Return the logits of rows of one length; a decoder's classifier finds the last token by the ids."""
        output = self._model(input_ids=ids, attention_mask=_ones(ids), inputs_embeds=hidden)
        return squeeze_logits(output.logits)


def _ones(rows: Tensor) -> Tensor:
    """Return the mask (n, L) of rows without padding."""
    return torch.ones(rows.shape[:2], dtype=torch.long)
