"""Fields of TEI's bodies that have several forms → one form: inputs, truncation side, truncation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from nearfar.core.errors import EmptyInput, InputError
from nearfar.core.types import KeepSide, TokenIds
from nearfar.dialects.kit.checks import check_at_most, overflow_of
from nearfar.dialects.tei.bodies import Inputs, Sequences, Truncation


def parse_inputs(value: Inputs) -> tuple[str | TokenIds, ...]:
    """Parse a text, the token ids of a text, or a list of either. Raises InputError for anything else."""
    if isinstance(value, str):
        return (value,)
    if value and all(isinstance(one, int) for one in value):
        return (cast("TokenIds", tuple(value)),)
    check_count("inputs", value)
    if any(isinstance(one, int) for one in value):
        raise InputError("`inputs` must be a text, the token ids of a text, or a list of either")
    return tuple(one if isinstance(one, str) else tuple(one) for one in cast("list[str | list[int]]", value))


def parse_sequences(value: Sequences) -> tuple[str | tuple[str, str], ...]:
    """Parse a text or a pair of texts, or a list of both. Raises InputError for anything else."""
    if isinstance(value, str):
        return (value,)
    if is_single(value):
        return (_sequence(value),)
    check_count("inputs", value)
    return tuple(_sequence([text] if isinstance(text, str) else text) for text in value)


def is_single(value: Sequences) -> bool:
    """Return whether the sequences are a single text or pair, not a list of them."""
    return isinstance(value, str) or (bool(value) and all(isinstance(text, str) for text in value))


def _sequence(texts: Sequence[object]) -> str | tuple[str, str]:
    match texts:
        case [str(text)]:
            return text
        case [str(text), str(other)]:
            return text, other
    raise InputError("`inputs` must be a text, a list of one or two texts, or a list of such lists")


def check_count(field: str, items: Sequence[object], limit: int | None = None) -> None:
    """Raise EmptyInput for an empty list, TooManyItems for one over the limit. TEI's limit, 32, breaks its clients."""
    if not items:
        raise EmptyInput(f"`{field}` cannot be empty")
    if limit is not None:
        check_at_most(limit, field, items)


def overflow(body: Truncation) -> dict[str, Any]:
    """Return the fields of a job that decide what happens to an over-long text. None leaves it to the model's setting.

    A text that is truncated on the left keeps its end.
    """
    sides: dict[str, KeepSide] = {"right": "start", "left": "end"}
    direction = "right" if body.truncation_direction is None else body.truncation_direction
    if direction.lower() not in sides:
        raise InputError(f"unknown variant `{direction[:50]}`, expected `Left` or `Right`")
    return {
        "keep": sides[direction.lower()],
        "on_overflow": overflow_of(body.truncate),
    }
