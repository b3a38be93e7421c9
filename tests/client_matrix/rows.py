"""The table: which clients there are, which checks each must pass, and what their tests' reports say of it.

Knows nothing of environments or processes. A client that is listed and has no report fails, as does a listed check that
no test belongs to, and a test that was skipped; so does a file of tests that isn't listed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

COLUMNS = ("embeddings", "rerank", "error", "retry", "other")
NO_RETRY = "no_retry"  # the client doesn't try again: its own error is seen, in the column of retries
TESTS = ("test_*.py", "*.test.mjs")


@dataclass(frozen=True, kw_only=True)
class Client:
    """One row: a file of tests, and the package whose version is told."""

    package: str
    environment: str  # a folder: python/… or node/…
    file: str
    checks: tuple[str, ...]

    @property
    def language(self) -> str:
        """Give the folder's first part."""
        return self.environment.partition("/")[0]

    @property
    def path(self) -> str:
        """Give the file's place among the tests."""
        return f"{self.environment}/{self.file}"

    def is_named(self, name: str) -> bool:
        """Tell whether a name on the command line means this one."""
        return name in {self.package, self.environment, self.environment.partition("/")[2], self.path}


@dataclass(frozen=True)
class Row:
    """What became of one client."""

    client: Client
    version: str = ""
    passed: dict[str, bool] = field(default_factory=dict)  # of each check that ran

    @property
    def is_good(self) -> bool:
        """Tell whether it was there, every check ran, and none failed."""
        return bool(self.version) and all(self.passed.values()) and set(self.client.checks) <= self.passed.keys()

    def cells(self) -> list[str]:
        """Give what the table says of it."""
        seen = [self._cell(column) for column in COLUMNS]
        name = f"{self.client.package} ({self.client.language})"
        return [name, self.version or "missing", *seen, "pass" if self.is_good else "FAIL"]

    def _cell(self, column: str) -> str:
        if column == "retry" and NO_RETRY in self.client.checks:
            return self._word(NO_RETRY, "raises")
        return self._word(column, "ok")

    def _word(self, check: str, good: str) -> str:
        if check in self.passed:
            return good if self.passed[check] else "FAIL"
        return "not run" if check in self.client.checks else "–"


def read_clients(file: Path) -> list[Client]:
    """Read the list of clients."""
    listed = tomllib.loads(file.read_text("utf-8"))["client"]
    return [Client(**{**row, "checks": tuple(row["checks"])}) for row in listed]


def unlisted(folder: Path, clients: Iterable[Client]) -> list[str]:
    """Give the files of tests that no client is listed with."""
    found = {
        path.relative_to(folder).as_posix()
        for language in ("python", "node")
        for pattern in TESTS
        for path in (folder / language).glob(f"*/{pattern}")
    }
    return sorted(found - {client.path for client in clients})


def checks_passed(report: str) -> dict[str, bool]:
    """Read a report in JUnit's form: each check that a test belongs to, and whether all its tests passed."""
    passed: dict[str, bool] = {}
    for names, case in _cases(ET.fromstring(report), ()):  # noqa: S314 — our own tests wrote it
        check = next((found for found in map(_check_of, names) if found), "other")
        good = not any(case.find(outcome) is not None for outcome in ("failure", "error", "skipped"))
        passed[check] = passed.get(check, True) and good
    return passed


def _cases(element: ET.Element, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ET.Element]]:
    """Walk to every test, with its name and those of what it stands in."""
    for child in element:
        inside = (*names, child.get("name", ""))
        if child.tag == "testcase":
            yield inside, child
        elif child.tag == "testsuite":
            yield from _cases(child, inside)


def _check_of(name: str) -> str | None:
    """Tell by its first word which check a test belongs to."""
    said = name.removeprefix("test_")
    return next((check for check in (NO_RETRY, *COLUMNS) if said.startswith(check)), None)


def table(rows: Sequence[Row]) -> str:
    """Draw the rows."""
    lines = [["client", "installed", *COLUMNS, "result"], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
