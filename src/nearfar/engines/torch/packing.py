"""Rows laid end to end instead of padded: the transformer runs on one row of all the batch's tokens.

Positions start again with every row and attention stays within it, so the numbers are those of the padded batch. What
comes after the transformer is given its hidden states by runs of equal lengths, which need no padding either. Where a
decoder's last token is all that counts, rows that begin alike have that beginning laid once: their head.
"""

from __future__ import annotations

from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor, nn

from nearfar.engines.common.prefixes import PrefixGroup, group_by_prefix
from nearfar.engines.torch.attention import Run, register
from nearfar.engines.transformer.heads import Vectors
from nearfar.engines.transformer.module import labelled
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.models.recipe.recipe import Recipe

Ids = npt.NDArray[np.int64]


class Layout(Struct, frozen=True, kw_only=True):
    """A batch end to end: the heads, and each group's rows, shortest first.

    (T,) arrays; ``heads`` and ``runs`` say where which lie, and ``order`` is the batch's index of each row laid.
    """

    ids: Ids
    positions: Ids
    types: Ids | None
    heads: list[Run]
    runs: list[Run]
    order: list[int]


def lay(batch: Sequence[Row], offset_after: int | None = None, groups: Sequence[PrefixGroup] = ()) -> Layout:
    """Lay the rows out, those of a group behind their common head; without ``groups`` each row is whole.

    ``offset_after`` is the padding id of a family that counts positions from there (RoBERTa).
    """
    groups = groups or [PrefixGroup(length=0, rows=list(range(len(batch))))]
    heads: list[Run] = []
    for group in groups:
        if group.length:
            heads.append(Run(heads[-1].tokens.stop if heads else 0, 1, group.length))
    runs: list[Run] = []
    order: list[int] = []
    laid = [(batch[group.rows[0]], 0, group.length) for group in groups if group.length]  # (row, from, to)
    end = heads[-1].tokens.stop if heads else 0
    shared = iter(heads)
    for group in groups:
        head = next(shared) if group.length else None
        rows = sorted(group.rows, key=lambda at: len(batch[at].ids))
        for length, run in groupby(len(batch[at].ids) - group.length for at in rows):
            runs.append(Run(end, len(list(run)), length, head))
            end = runs[-1].tokens.stop
        order += rows
        laid += [(batch[at], group.length, len(batch[at].ids)) for at in rows]
    return _flat(laid, offset_after, heads, runs, order)


def _flat(
    laid: Sequence[tuple[Row, int, int]], offset_after: int | None, heads: list[Run], runs: list[Run], order: list[int]
) -> Layout:
    """Join the pieces of rows, each from one of its tokens to another, into arrays."""
    firsts = np.array([first for _, first, _ in laid])
    lengths = np.array([last for _, _, last in laid]) - firsts
    count = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(row.ids[first:last] for row, first, last in laid), np.int64, count)
    types = None
    if any(row.type_ids for row, _, _ in laid):
        typed = (row.type_ids[first:last] if row.type_ids else [0] * (last - first) for row, first, last in laid)
        types = np.fromiter(chain.from_iterable(typed), np.int64, count)
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)  # (T,) tokens of earlier pieces
    positions = (
        np.arange(count) - before + np.repeat(firsts, lengths)
        if offset_after is None
        else _offset_positions(ids, before, offset_after)
    )
    return Layout(ids=ids, positions=positions, types=types, heads=heads, runs=runs, order=order)


def _offset_positions(ids: Ids, before: Ids, padding_id: int) -> Ids:
    """Count from ``padding_id`` + 1, and give a padding token that a text spells out that id for a position."""
    counted = ids != padding_id
    total = np.concatenate([[0], np.cumsum(counted)])  # (T + 1,) of those before each token
    positions: Ids = (total[1:] - total[before]) * counted + padding_id
    return positions


class _Given(nn.Module):
    """Stands in a classifier for its transformer and answers with the hidden states that it is handed."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self._pooler = pooler

    def forward(self, _ids: Tensor | None = None, *, inputs_embeds: Tensor, **_rest: object) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self._pooler(inputs_embeds) if self._pooler else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)


class PackedModel:
    """Runs a transformer, and the pooling or the classifier after it, on batches laid end to end.

    Takes the model over: ``undo`` gives it back as it was. Counts of tokens are rounded up to a ``multiple``. With
    ``shares_prefixes`` set, which is only right for causal models, heads that rows have in common are computed once.
    """

    def __init__(self, model: Any, recipe: Recipe, multiple: int = 1) -> None:
        self._multiple = multiple
        self._model = model
        self._base = model.base_model
        self._attention = model.config._attn_implementation  # noqa: SLF001 — has a setter but no other getter
        self._vectors = Vectors(recipe) if recipe.task == "embed" else None
        embeddings: Any = getattr(self._base, "embeddings", None)
        from_ids = hasattr(embeddings, "create_position_ids_from_input_ids")  # the RoBERTa family has it
        self._offset_after: int | None = embeddings.padding_idx if from_ids else None
        self.shares_prefixes = False
        # Whatever looks at more of a row than its last token would miss the head.
        self.can_share = not from_ids and recipe.pooling in {(), ("lasttoken",)}
        self._base.set_attn_implementation(register())
        if self._vectors is None:
            setattr(model, model.base_model_prefix, _Given(getattr(self._base, "pooler", None)))

    def undo(self) -> None:
        """Let the model pad again."""
        if self._vectors is None:
            setattr(self._model, self._model.base_model_prefix, self._base)
        self._base.set_attn_implementation(self._attention)

    def __call__(self, batch: Sequence[Row]) -> Tensor:
        """Give vectors (B, D) or logits (B,)."""
        groups = group_by_prefix(batch) if self.shares_prefixes else []
        filler = self._filler(batch, groups)
        if filler and groups:
            groups.append(PrefixGroup(length=0, rows=list(range(len(batch), len(batch) + len(filler)))))
        layout = lay([*batch, *filler], self._offset_after, groups)
        hidden = self._transform(layout)
        if self._vectors:
            pooled = [self._vectors.pool(rows, _all(rows)) for rows in (run.rows(hidden) for run in layout.runs)]
            answers = self._vectors.project(torch.cat(pooled))
        else:
            ids = torch.from_numpy(layout.ids)
            answers = torch.cat([self._classify(run.rows(hidden), run.rows(ids)) for run in layout.runs])
        back = torch.empty_like(answers)
        back[layout.order] = answers
        return back[: len(batch)]

    def hidden(self, batch: Sequence[Row]) -> list[Tensor]:
        """Give each row's last hidden states (n, H); every row is whole, whatever it shares with others."""
        layout = lay([*batch, *self._filler(batch, [])], self._offset_after)
        states = self._transform(layout).float()
        each = [row for run in layout.runs for row in run.rows(states)]
        back = dict(zip(layout.order, each, strict=True))
        return [back[at] for at in range(len(batch))]

    def _transform(self, layout: Layout) -> Tensor:
        """Give the last hidden states (T, H) of all tokens."""
        ids = torch.from_numpy(layout.ids)[None]  # (1, T)
        types = {} if layout.types is None else {"token_type_ids": torch.from_numpy(layout.types)[None]}
        found = self._base(
            input_ids=ids,
            # All ones, and no mask comes of it; with none at all transformers would look for rows among the positions.
            attention_mask=torch.ones(ids.shape, dtype=torch.bool),
            position_ids=torch.from_numpy(layout.positions)[None],
            runs=[*layout.heads, *layout.runs],
            **types,
        )
        hidden: Tensor = found.last_hidden_state[0]
        return hidden

    def _filler(self, batch: Sequence[Row], groups: Sequence[PrefixGroup]) -> list[Row]:
        """Make the rows, of a token each, that bring the tokens up to a multiple; nobody gets their answers."""
        spared = sum(group.length * (len(group.rows) - 1) for group in groups)
        missing = (spared - sum(len(row.ids) for row in batch)) % self._multiple
        return [Row([0], None, 0, 0)] * missing

    def _classify(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Give the logits of rows of one length; a decoder's classifier looks in the ids for the last token."""
        found = self._model(input_ids=ids, attention_mask=_all(ids), inputs_embeds=hidden)
        return labelled(found.logits)


def _all(rows: Tensor) -> Tensor:
    """Make the mask (n, L) of rows without padding."""
    return torch.ones(rows.shape[:2], dtype=torch.long)
