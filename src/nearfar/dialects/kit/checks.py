"""Checks that several dialects make. The dialect's table of errors has the vendor's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from typing import Annotated, Any, TypeVar, cast

import msgspec
import numpy as np
from msgspec import Struct

from nearfar.core.errors import BodyTooLarge, EmptyInput, InputError, ModelRequired, TooManyItems
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide, TokenIds
from nearfar.dialects.kit.body.decode import decode_json
from nearfar.dialects.kit.route_docs import json_schema

# The truncation of Cohere's and NVIDIA's protocols. None leaves it to the model's setting.
TRUNCATE: Mapping[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}

Inputs = str | list[str | int | list[int]]
_QUOTE, _COMMA = b'",'
# What is decoded in about 50 ms, which nothing can interrupt. OpenAI allows 300,000 token ids in a request.
_MAX_STRINGS, _MAX_VALUES = 150_000, 350_000
_T = TypeVar("_T")
# Decodes an object without its values.
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MISMATCH = re.compile(r"Expected `([^`]+)`, got `(\w+)`(?: - at `\$\.?(.*)`)?")  # msgspec's words
_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def explain_mismatch(error: msgspec.ValidationError) -> str:
    """Return the message for JSON of another shape: ``documents[1] must be text, not null``."""
    found = _MISMATCH.fullmatch(str(error))
    if not found:
        return str(error)
    expected, got, place = found.groups()
    kinds = [kind for kind in expected.split(" | ") if kind != "null"]
    words = "text or token ids" if {"str", "int"} <= {*kinds} else " or ".join(_KINDS.get(kind, kind) for kind in kinds)
    is_fraction = got == "float" and "int" in kinds
    return f"{place or 'the body'} must be {words}, not {'a fraction' if is_fraction else _KINDS.get(got, got)}"


def shape_error(error: msgspec.ValidationError) -> InputError:
    """Return the error for JSON of another shape than the decoder's."""
    return InputError(explain_mismatch(error))


def decode_part(raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Decode a body or a part of one. Raises InputError for JSON of another shape, and MalformedBody."""
    try:
        return decode_json(bytes(raw), decoder)
    except msgspec.ValidationError as error:
        raise shape_error(error) from error


class TruncationFields(Struct, kw_only=True):
    """vLLM's fields for long texts. ``truncate_prompt_tokens`` includes special tokens; -1 means the model's limit."""

    truncate_prompt_tokens: Annotated[int, json_schema(minimum=-1, **{"not": {"const": 0}})] | None = None
    truncation_side: Annotated[str, json_schema(enum=["left", "right"])] | None = None

    def truncation(self) -> dict[str, Any]:
        """Return the fields of a job that these replace. Raises InputError for an unknown value."""
        limit, side = self.truncate_prompt_tokens, self.truncation_side
        if limit is not None and (limit < -1 or not limit):
            raise InputError(f"truncate_prompt_tokens must be -1 or at least 1, not {limit}")
        if side not in {None, "left", "right"}:
            raise InputError(f"truncation_side must be left or right, not {str(side)[:50]!r}")
        job: dict[str, Any] = {} if limit is None else {"on_overflow": "truncate"}
        if limit is not None and limit > 0:
            job["max_row_tokens"] = limit
        return job if side is None else job | {"keep": "end" if side == "left" else "start"}


class Activation(TruncationFields, kw_only=True):
    """vLLM's field for the last step of a model, and its older name."""

    use_activation: bool | None = None
    activation: bool | None = None

    @property
    def activates(self) -> bool | None:
        """Return whether the last step is wanted; None leaves it to the model. ``use_activation`` is the newer name."""
        return self.activation if self.use_activation is None else self.use_activation

    @property
    def wants_logits(self) -> bool:
        """Return whether scores are wanted without the activation."""
        return self.activates is False


def parse_inputs(found: Inputs) -> tuple[str | TokenIds, ...]:
    """Return a text, texts, or token ids of one text or of several. Raises InputError, EmptyInput if there are none."""
    if isinstance(found, str):
        found = [found] if found else []
    if not found or [] in found:
        raise EmptyInput("input must not be empty", "input")
    kinds = {*map(type, found)}
    if len(kinds) > 1:
        other = next(index for index, one in enumerate(found) if type(one) is not type(found[0]))
        raise InputError(f"input[{other}] is of another kind than input[0]", "input")
    if kinds == {int}:
        return (cast("TokenIds", tuple(found)),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in cast("list[str | list[int]]", found))


def require_model(model: str | None) -> str:
    """Return the model's name. Raises ModelRequired."""
    if not model:
        raise ModelRequired("model is required", "model")
    return model


def check_at_most(limit: int, param: str, items: Sized) -> None:
    """Raise TooManyItems for a list over the limit."""
    if len(items) > limit:
        raise TooManyItems(param, len(items), limit)


def overflow_of(truncate: bool | None) -> OnOverflow | None:
    """Return what to do with an over-long text. None leaves it to the model's setting."""
    return None if truncate is None else "truncate" if truncate else "error"


class ValueCounts(Struct, frozen=True):
    """How many strings a body has, keys included, and how many separators: about one a value."""

    strings: int
    separators: int


def count_values(body: bytes) -> ValueCounts:
    """Count the strings, and the commas outside of them. 10 MB take about 100 ms, most of it without the GIL."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"__").replace(rb"\"", b"__")  # so that every quote begins or ends a string
    characters = np.frombuffer(body, np.uint8)
    is_quote = characters == _QUOTE
    is_inside = np.logical_xor.accumulate(is_quote)
    separators = np.count_nonzero((characters == _COMMA) & ~is_inside)
    return ValueCounts(int(np.count_nonzero(is_quote)) // 2, int(separators))


def refuse_many_values(body: bytes) -> None:
    """Raise BodyTooLarge for a body that would take too long to decode, which nothing can interrupt."""
    counts = count_values(body)
    for count, limit, what in (
        (counts.strings, _MAX_STRINGS, "strings, keys included"),
        (counts.separators, _MAX_VALUES, "values"),
    ):
        if count > limit:
            raise BodyTooLarge(f"the body has {count:,} {what}, and this server reads at most {limit:,} at once")
