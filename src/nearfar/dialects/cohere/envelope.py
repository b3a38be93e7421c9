"""What Cohere's routes have in common: the model that must be named, and the note about what was billed."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from nearfar import errors


class Meta(Struct, omit_defaults=True):
    """Which version of the protocol answered, and what Cohere would bill."""

    api_version: dict[str, str]
    billed_units: dict[str, int] = {}


def meta_example(version: str, **billed: int) -> dict[str, Any]:
    """Give what the OpenAPI document shows."""
    return {"api_version": {"version": version}, **({"billed_units": billed} if billed else {})}


def named(model: str | None) -> str:
    """Give the model's name where the protocol wants one. Raises NoModel."""
    if not model:
        raise errors.NoModel("a model parameter is required for this endpoint.")
    return model
