"""Checks that several dialects make. The dialect's table of errors has the vendor's words."""

from __future__ import annotations

from collections.abc import Mapping, Sized

from nearfar.core.errors import ModelRequired, TooManyItems
from nearfar.core.settings import OnOverflow
from nearfar.core.types import KeepSide

# The truncation of Cohere's and NVIDIA's protocols. None leaves it to the model's setting.
TRUNCATE: Mapping[str | None, tuple[OnOverflow | None, KeepSide]] = {
    None: (None, "start"),
    "NONE": ("error", "start"),
    "START": ("truncate", "end"),
    "END": ("truncate", "start"),
}


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
