"""What the arguments of Voyage's routes have in common: what must be there, and what must be one of a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.core import errors

if TYPE_CHECKING:
    from collections.abc import Collection


def named(model: str | None) -> str:
    """Give the model's name. Raises ModelRequired."""
    if not model:
        raise errors.ModelRequired("Field required", "model")
    return model


def checked(param: str, said: str | None, known: Collection[str]) -> str | None:
    """Give what was said, where it is one of the known words. Raises InputError."""
    if said is not None and said not in known:
        raise errors.InputError(f"must be one of {', '.join(known)}, not {said[:50]!r}", param)
    return said
