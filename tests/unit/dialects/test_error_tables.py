"""Every dialect has its words for everything that can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nearfar.core import errors
from nearfar.dialects.kit.base import installed_dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALECTS = {dialect.name: dialect for dialect in installed_dialects()}


def _descendants(kind: type[errors.NearfarError]) -> Iterator[type[errors.NearfarError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _descendants(child)


ANSWERABLE = [*_descendants(errors.RequestError), *_descendants(errors.ServingError)]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("kind", ANSWERABLE, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row_in_every_dialect(kind: type[errors.NearfarError], name: str) -> None:
    row = DIALECTS[name].errors[kind]

    # No device grows: a text that it can't hold is told in a status that clients don't send again for.
    unasked = not issubclass(kind, (errors.RequestError, errors.DeviceOutOfMemory))
    lowest = 424 if name == "tei" else 429  # TEI's own word for a failed inference
    assert (lowest if unasked else 400) <= row.status
    assert row.status < (600 if unasked else 500)


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""

    for kind in [*ANSWERABLE, *_descendants(errors.SetupError)]:
        assert kind.__name__ in drawn or kind.__module__ != errors.__name__


@pytest.mark.parametrize("name", DIALECTS)
def test_causes_of_failures_are_never_phrased(name: str) -> None:
    secret = errors.EngineError("an inner detail")
    row = DIALECTS[name].errors[errors.EngineError]

    sentence = row.phrase(secret) if row.phrase else ""

    assert "inner detail" not in sentence
