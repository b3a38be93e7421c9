"""Every dialect reports everything that can go wrong, from one table of defaults and its own table of differences."""

from __future__ import annotations

import pytest

from nearfar.core import errors
from nearfar.dialects.kit.error_responses import DEFAULTS, ErrorRow, ErrorTable, all_errors, error_row
from nearfar.dialects.kit.routing import installed_dialects

DIALECTS = {dialect.name: dialect for dialect in installed_dialects()}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_error_has_a_status_that_tells_clients_whether_to_retry(name: str) -> None:
    lowest = 424 if name == "tei" else 429  # TEI's own status for a failed inference
    offenders = []

    for kind in all_errors():
        status = error_row(kind, DIALECTS[name].errors).status
        is_final = issubclass(kind, (errors.RequestError, errors.DeviceOutOfMemory))
        if not (400 <= status < 500 if is_final else lowest <= status < 600):
            offenders.append(f"{kind.__name__}: {status}")

    assert not offenders


@pytest.mark.parametrize("name", DIALECTS)
def test_a_table_has_only_what_differs(name: str) -> None:
    table = DIALECTS[name].errors

    repeated = [
        kind.__name__
        for kind, row in table.items()
        if error_row(kind, table) == error_row(kind, {other: table[other] for other in table if other is not kind})
        or (row.status and row.status == error_row(kind, {**table, kind: ErrorRow()}).status)
    ]

    assert not repeated


@pytest.mark.parametrize("name", DIALECTS)
def test_a_message_for_failures_never_quotes_the_error(name: str) -> None:
    failures = [errors.EngineError("an inner detail"), errors.InternalError("an inner detail")]
    table = DIALECTS[name].errors

    messages = [row.message(error) for error in failures if (row := error_row(type(error), table)).message]

    assert "inner detail" not in "".join(messages)


def test_the_nearest_class_wins_and_the_dialects_row_goes_before_the_default() -> None:
    table: ErrorTable = {
        errors.InputError: ErrorRow(422, "input"),
        errors.TooManyItems: ErrorRow(kind="items"),
        errors.ModelNotFound: ErrorRow(400),
    }
    expected = {
        errors.WrongTask: ErrorRow(400),  # its parent's default
        errors.ModelNotFound: ErrorRow(400),  # the dialect's, in place of 404
        errors.EmptyInput: ErrorRow(422, "input"),  # its parent's, of the dialect
        errors.TooManyItems: ErrorRow(422, "items"),  # its own, with the parent's status
        errors.BodyTooLarge: ErrorRow(413),  # its own default, nearer than the parent's row
    }

    assert expected == {kind: error_row(kind, table) for kind in expected}


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""
    kinds = {*all_errors(), errors.SetupError, *errors.SetupError.__subclasses__()}

    assert not [kind.__name__ for kind in kinds if kind.__module__ == errors.__name__ and kind.__name__ not in drawn]
    assert DEFAULTS.keys() <= kinds
