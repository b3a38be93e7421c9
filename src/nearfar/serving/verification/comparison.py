"""Compares an engine's numbers, text in and vector or logit out, with the reference's, alone and in mixed batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.core.types import FloatArray, Representation, Role
from nearfar.engines.base import Engine
from nearfar.engines.common.oom import is_out_of_memory
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder
from nearfar.serving.verification.reference import Answer, Texts

# The largest difference by precision: of a vector relative to its length (0.0045 is a cosine of 0.99999), and of a
# logit relative to the spread of all logits, if that is above 1. What a precision itself loses is judged elsewhere.
_TOLERANCE = {"float32": (0.0045, 0.002), "int8": (0.3, 0.5)}
_HALF = (0.1, 0.2)
_BATCH = 8
_ROLES: tuple[Role, ...] = ("query", "document")  # of a pair's texts
_SHOWN = 60  # characters of a text in a message


class Served(NamedTuple):
    """What a server has of a model: its tokenizer, its recipe, its engine, and a prompt to try it with."""

    encoder: TextEncoder
    recipe: Recipe
    engine: Engine
    prompt: str = ""

    def encode(self, items: Sequence[Texts]) -> list[list[Row]]:
        """Encode texts, or pairs. A model with a vector for each token reads the two texts of a pair one by one."""
        recipe, encode = self.recipe, self.encoder.encode
        if recipe.task == "score":
            return [self.encoder.encode_pairs(query, [document], None) for query, document in items]
        if recipe.multi_vector:
            prompts = {role: choose_prompt(recipe, None, role) for role in _ROLES}
            return [
                [encode([text], prompts[role], role=role)[0] for role, text in zip(_ROLES, item, strict=True)]
                for item in items
            ]
        return [[row] for row in encode([text for (text,) in items], self.prompt)]

    def run(self, items: Sequence[list[Row]]) -> list[FloatArray]:
        """Return all numbers of each item, in one dimension. Raises EngineUnavailable if the engine fails."""
        rows = [row for item in items for row in item]
        try:
            found = self._compute(rows)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            name, tokens = self.engine.info.name, max(len(row.ids) for row in rows)
            raise EngineUnavailable(
                f"the {name} engine fails on a text of {tokens} tokens ({error}), which the library computes; use "
                "another --engine, or a smaller max_tokens for this model"
            ) from error
        numbers = iter(found)
        return [np.concatenate([np.ravel(next(numbers)) for _ in item]) for item in items]

    def _compute(self, rows: Sequence[Row]) -> Sequence[FloatArray]:
        if self.recipe.task == "score":
            return [*self.engine.score(rows)]
        if self.recipe.outputs == ("dense",):
            filled = [row for row in rows if row.ids]
            vectors = iter(self.engine.embed(filled) if filled else ())
            # As served: zeros where a text has no tokens, or none behind a prompt that isn't pooled.
            return [next(vectors) if row.ids else np.zeros(self.engine.info.dim, np.float32) for row in rows]
        return [_numbers_of(each) for each in self.engine.represent(rows)]


def compare(served: Served, items: Sequence[Texts], answer: Answer, hint: str) -> None:
    """Raise CheckpointError or EngineUnavailable, with the text and the suspected stage, where numbers differ.

    EngineUnavailable, where the tokens are equal: another engine may compute them rightly.
    """
    known = [at for at, numbers in enumerate(answer.numbers) if numbers is not None]
    rows = served.encode([items[at] for at in known])
    expected = [np.array(answer.numbers[at], dtype=np.float64) for at in known]
    wrong, worst = _worst(expected, [served.run([each])[0] for each in rows], served)
    reason = f"its numbers aren't those of {answer.library}: for {{}} they differ by {worst:.2g}"
    if wrong is not None:
        item, theirs = items[known[wrong]], answer.ids[known[wrong]] or []
        message = f"{reason.format(_quoted(item))} (limit {_limit(served):g})"
        if theirs and theirs != rows[wrong][0].ids:
            raise CheckpointError(
                f"{message}; its tokens are other ones, {_ids(rows[wrong][0].ids)} where {answer.library} "
                f"has {_ids(theirs)}: suspect tokenizer_config.json, sentence_bert_config.json or the limit in tokens; "
                f"{hint}"
            )
        raise EngineUnavailable(f"{message}; its tokens are the same: suspect {_stage(served)}; {hint}")
    batches = [rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH)]
    wrong, worst = _worst(expected, [each for batch in batches for each in served.run(batch)], served)
    if wrong is not None:
        raise EngineUnavailable(
            f"texts in its batch change the numbers of {_quoted(items[known[wrong]])} by {worst:.2g} (limit "
            f"{_limit(served):g}), which are those of {answer.library} for the text alone; {hint}"
        )


def _numbers_of(text: Representation) -> FloatArray:
    """Return the vectors of a text's tokens, or its weight for each token of the vocabulary."""
    if text.multi_vector is not None:
        return text.multi_vector
    if text.sparse is None:
        raise ValueError("the engine returned neither vectors of tokens nor weights")
    weights = np.zeros(text.sparse.size, dtype=np.float32)
    weights[text.sparse.indices] = text.sparse.values
    return weights


def _worst(
    expected: Sequence[npt.NDArray[np.float64]], found: Sequence[FloatArray], served: Served
) -> tuple[int | None, float]:
    """Return the index of the item that differs most, if that is too much, and its relative difference."""
    is_embedder = served.recipe.task == "embed"
    spread = 1.0 if is_embedder else max(float(np.concatenate(expected).std()), 1.0)
    relative = np.array(
        [_difference(one, other, spread, is_vector=is_embedder) for one, other in zip(expected, found, strict=True)]
    )
    at = int(relative.argmax())
    return (at if relative[at] > _limit(served) else None), float(relative[at])


def _difference(expected: npt.NDArray[np.float64], found: FloatArray, spread: float, *, is_vector: bool) -> float:
    """Return the difference relative to a vector's length, or to the spread of logits."""
    if expected.shape != found.shape:
        return float("inf")
    scale = max(float(np.linalg.norm(expected)), 1e-6) if is_vector else spread
    return float(np.nan_to_num(np.linalg.norm(found - expected) / scale, nan=np.inf))


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
