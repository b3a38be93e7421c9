"""Rows laid end to end instead of padded: the transformer runs on one row of all the batch's tokens.

Positions start again with every row and attention stays within it, so the numbers are those of the padded batch. What
comes after the transformer is given its hidden states by runs of equal lengths, which need no padding either.
"""

from __future__ import annotations

from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor, nn

from nearfar.engines.heads import Vectors
from nearfar.engines.module import labelled
from nearfar.engines.torch.attention import Run, register
from nearfar.models.tokens import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.models.recipe import Recipe

Ids = npt.NDArray[np.int64]


class Layout(Struct, frozen=True, kw_only=True):
    """A batch end to end, shortest rows first: (T,) arrays, and ``order``, the batch's index of each row laid."""

    ids: Ids
    positions: Ids
    types: Ids | None
    runs: list[Run]
    order: list[int]


def lay(batch: Sequence[Row], offset_after: int | None = None) -> Layout:
    """Lay the rows out. ``offset_after`` is the padding id of a family that counts positions from there (RoBERTa)."""
    order = sorted(range(len(batch)), key=lambda at: len(batch[at].ids))
    rows = [batch[at] for at in order]
    lengths = np.array([len(row.ids) for row in rows])
    starts = np.cumsum(lengths) - lengths
    count = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int64, count)
    types = None
    if any(row.type_ids for row in rows):
        types = np.fromiter(chain.from_iterable(row.type_ids or [0] * len(row.ids) for row in rows), np.int64, count)
    runs: list[Run] = []
    for length, run in groupby(lengths.tolist()):
        runs.append(Run(runs[-1].tokens.stop if runs else 0, len(list(run)), length))
    before = np.repeat(starts, lengths)  # (T,) tokens of earlier rows
    positions = np.arange(count) - before if offset_after is None else _offset_positions(ids, before, offset_after)
    return Layout(ids=ids, positions=positions, types=types, runs=runs, order=order)


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

    Takes the model over: ``undo`` gives it back as it was. Counts of tokens are rounded up to a ``multiple``.
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
        layout = lay([*batch, *self._filler(batch)], self._offset_after)
        ids = torch.from_numpy(layout.ids)[None]  # (1, T)
        types = {} if layout.types is None else {"token_type_ids": torch.from_numpy(layout.types)[None]}
        found = self._base(
            input_ids=ids,
            # All ones, and no mask comes of it; with none at all transformers would look for rows among the positions.
            attention_mask=torch.ones(ids.shape, dtype=torch.bool),
            position_ids=torch.from_numpy(layout.positions)[None],
            runs=layout.runs,
            **types,
        )
        hidden: Tensor = found.last_hidden_state[0]  # (T, H)
        if self._vectors:
            pooled = [self._vectors.pool(rows, _all(rows)) for rows in (run.rows(hidden) for run in layout.runs)]
            answers = self._vectors.project(torch.cat(pooled))
        else:
            answers = torch.cat([self._classify(run.rows(hidden), run.rows(ids[0])) for run in layout.runs])
        back = torch.empty_like(answers)
        back[layout.order] = answers
        return back[: len(batch)]

    def _filler(self, batch: Sequence[Row]) -> list[Row]:
        """Make the rows, of a token each, that bring the tokens up to a multiple; nobody gets their answers."""
        missing = -sum(len(row.ids) for row in batch) % self._multiple
        return [Row([0], None, 0, 0)] * missing

    def _classify(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Give the logits of rows of one length; a decoder's classifier looks in the ids for the last token."""
        found = self._model(input_ids=ids, attention_mask=_all(ids), inputs_embeds=hidden)
        return labelled(found.logits)


def _all(rows: Tensor) -> Tensor:
    """Make the mask (n, L) of rows without padding."""
    return torch.ones(rows.shape[:2], dtype=torch.long)
