"""Compares an engine's numbers, text in and vector or logit out, with the reference's, alone and in mixed batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.core.types import FloatArray
from nearfar.engines.base import Engine
from nearfar.engines.common.oom import is_out_of_memory
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.verification.reference import Answer, Texts

# The largest difference by precision: of a vector relative to its length (0.0045 is a cosine of 0.99999), and of a
# logit relative to the spread of all logits, if that is above 1. What a precision itself loses is judged elsewhere.
_TOLERANCE = {"float32": (0.0045, 0.002), "int8": (0.3, 0.5)}
_HALF = (0.1, 0.2)
_BATCH = 8
_SHOWN = 60  # characters of a text in a message


class Served(NamedTuple):
    """What a server has of a model: its tokenizer, its recipe, its engine, and a prompt to try it with."""

    encoder: TextEncoder
    recipe: Recipe
    engine: Engine
    prompt: str = ""

    def encode(self, items: Sequence[Texts]) -> list[Row]:
        """Encode texts, or pairs."""
        if self.recipe.task == "embed":
            return self.encoder.encode([text for (text,) in items], self.prompt)
        return [self.encoder.encode_pairs(query, [document], None)[0] for query, document in items]

    def run(self, rows: Sequence[Row]) -> FloatArray:
        """Return (B, D) vectors, or (B, labels) logits. Raises EngineUnavailable if the engine fails."""
        try:
            found = self.engine.embed(rows) if self.recipe.task == "embed" else self.engine.score(rows)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            name, tokens = self.engine.info.name, max(len(row.ids) for row in rows)
            raise EngineUnavailable(
                f"the {name} engine fails on a text of {tokens} tokens ({error}), which the library computes; use "
                "another --engine, or a smaller max_tokens for this model"
            ) from error
        return found.reshape(len(rows), -1)


def compare(served: Served, items: Sequence[Texts], answer: Answer, hint: str) -> None:
    """Raise CheckpointError or EngineUnavailable, with the text and the suspected stage, where numbers differ.

    EngineUnavailable, where the tokens are equal: another engine may compute them rightly.
    """
    known = [at for at, numbers in enumerate(answer.numbers) if numbers is not None]
    rows = served.encode([items[at] for at in known])
    expected = np.array([answer.numbers[at] for at in known], dtype=np.float64)
    alone = np.concatenate([served.run([row]) for row in rows])
    spread = 1.0 if served.recipe.task == "embed" else max(float(expected.std()), 1.0)
    wrong, worst = _worst(expected, alone, served, spread)
    reason = f"its numbers aren't those of {answer.library}: for {{}} they differ by {worst:.2g}"
    if wrong is not None:
        item, theirs = items[known[wrong]], answer.ids[known[wrong]] or []
        message = f"{reason.format(_quoted(item))} (limit {_limit(served):g})"
        if theirs and theirs != rows[wrong].ids:
            raise CheckpointError(
                f"{message}; its tokens are other ones, {_ids(rows[wrong].ids)} where {answer.library} "
                f"has {_ids(theirs)}: suspect tokenizer_config.json, sentence_bert_config.json or the limit in tokens; "
                f"{hint}"
            )
        raise EngineUnavailable(f"{message}; its tokens are the same: suspect {_stage(served)}; {hint}")
    batches = [rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH)]
    wrong, worst = _worst(expected, np.concatenate([served.run(batch) for batch in batches]), served, spread)
    if wrong is not None:
        raise EngineUnavailable(
            f"texts in its batch change the numbers of {_quoted(items[known[wrong]])} by {worst:.2g} (limit "
            f"{_limit(served):g}), which are those of {answer.library} for the text alone; {hint}"
        )


def _worst(
    expected: npt.NDArray[np.float64], found: FloatArray, served: Served, spread: float
) -> tuple[int | None, float]:
    """Return the index of the item that differs most, if that is too much, and its relative difference."""
    if expected.shape != found.shape:
        return 0, float("inf")
    difference = np.linalg.norm(found - expected, axis=1)
    scale = np.maximum(np.linalg.norm(expected, axis=1), 1e-6) if served.recipe.task == "embed" else spread
    relative = np.nan_to_num(difference / scale, nan=np.inf)
    at = int(relative.argmax())
    return (at if relative[at] > _limit(served) else None), float(relative[at])


def _limit(served: Served) -> float:
    return _TOLERANCE.get(served.engine.info.dtype, _HALF)[served.recipe.task == "score"]


def _stage(served: Served) -> str:
    if served.recipe.task == "score":
        return "config.json, the classifier's weights, or the engine"
    return f"modules.json and {served.recipe.pooling_source or 'its pooling'}, config.json, or the engine"


def _quoted(item: Texts) -> str:
    return " and ".join(repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…") for text in item)


def _ids(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:6]))
    return f"{len(ids)} tokens [{shown}{', …' if len(ids) > 6 else ''}]"  # noqa: PLR2004 — as many as were shown
