"""What TEI's bodies may say in several ways → one way: inputs, the side that is cut, whether anything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from nearfar.core.errors import EmptyInput, InputError, TooManyItems
from nearfar.dialects.kit.request import MAX_INPUTS, decode_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.core.settings import OnOverflow
    from nearfar.core.types import Keep, TokenIds


_T = TypeVar("_T")
_Inputs = str | list[str | int | list[int]]
_Sequences = str | list[str | list[str]]
_inputs_decoder: msgspec.json.Decoder[_Inputs] = msgspec.json.Decoder(_Inputs)
_sequences_decoder: msgspec.json.Decoder[_Sequences] = msgspec.json.Decoder(_Sequences)


def inputs_of(raw: msgspec.Raw) -> tuple[str | TokenIds, ...]:
    """Sort out a text, a text's token ids, and several of either. Raises an InputError for anything else."""
    said = _decoded(raw, _inputs_decoder)
    if isinstance(said, str):
        return (said,)
    if not said:
        raise EmptyInput("`inputs` cannot be empty")
    if all(isinstance(one, int) for one in said):
        return (cast("TokenIds", tuple(said)),)
    if any(isinstance(one, int) for one in said):
        raise InputError("`inputs` must be a text, the token ids of one, or several of either in a list")
    refuse_many("inputs", len(said))
    return tuple(one if isinstance(one, str) else tuple(one) for one in cast("list[str | list[int]]", said))


def sequences_of(raw: msgspec.Raw) -> tuple[tuple[str | tuple[str, str], ...], bool]:
    """Sort out texts and pairs, and tell whether the answer is that of a single one."""
    said = _decoded(raw, _sequences_decoder)
    if isinstance(said, str):
        return (said,), True
    if not said:
        raise EmptyInput("`inputs` cannot be empty")
    if all(isinstance(text, str) for text in said):
        return (_sequence(said),), True
    refuse_many("inputs", len(said))
    return tuple(_sequence([text] if isinstance(text, str) else text) for text in said), False


def _sequence(texts: Sequence[object]) -> str | tuple[str, str]:
    match texts:
        case [str(text)]:
            return text
        case [str(text), str(other)]:
            return text, other
    raise InputError("`inputs` must be a text, a list of one or two texts, or several of these in a list")


def _decoded(raw: msgspec.Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return decode_json(bytes(raw), decoder)
    except msgspec.ValidationError as error:
        raise InputError(f"{error} - at `$.inputs`") from error


def refuse_many(param: str, count: int, limit: int = MAX_INPUTS) -> None:
    """Raise TooManyItems for a list that is longer than the limit. TEI's own is 32, over which its callers stumble."""
    if count > limit:
        raise TooManyItems(param, count, limit)


def keep_of(direction: str | None) -> Keep:
    """Say which part of an over-long text is kept: cut on the left, that is its end."""
    if direction is not None and direction.lower() not in {"left", "right"}:
        raise InputError(f"unknown variant `{direction[:50]}`, expected `Left` or `Right`")
    return "end" if direction is not None and direction.lower() == "left" else "start"


def overflow_of(*, truncate: bool | None) -> OnOverflow | None:
    """Say what becomes of an over-long text; None leaves that to the model's setting."""
    if truncate is None:
        return None
    return "truncate" if truncate else "error"
