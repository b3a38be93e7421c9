"""Checks that several dialects make. The dialect's table of errors has the vendor's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized

import msgspec

from nearfar.core.errors import InputError, ModelRequired, TooManyItems
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide

# The truncation of Cohere's and NVIDIA's protocols. None leaves it to the model's setting.
TRUNCATE: Mapping[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}

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
