"""The table of results: the listed clients, the checks each must pass, and the outcomes in their JUnit reports.

No environments, no processes. A row fails if its client has no report, if no test belongs to a listed check, or if a
test was skipped. A test file that isn't listed fails the run.
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
NO_RETRY = "no_retry"  # the client doesn't retry: its own error is expected; shown in the column retry
TEST_FILES = ("test_*.py", "*.test.mjs")


@dataclass(frozen=True, kw_only=True)
class Client:
    """One row: a test file, and the package to show the version of."""

    package: str
    environment: str  # a folder, python/… or node/…
    file: str
    checks: tuple[str, ...]

    @property
    def language(self) -> str:
        """Return python or node."""
        return self.environment.partition("/")[0]

    @property
    def path(self) -> str:
        """Return the test file's path, relative to this folder."""
        return f"{self.environment}/{self.file}"

    def is_named(self, name: str) -> bool:
        """Return whether a name on the command line selects this client."""
        return name in {self.package, self.environment, self.environment.partition("/")[2], self.path}


@dataclass(frozen=True)
class Row:
    """The result of one client."""

    client: Client
    version: str = ""
    passed: dict[str, bool] = field(default_factory=dict)  # of each check that ran

    @property
    def passes(self) -> bool:
        """Return whether the client is installed, every check ran, and none failed."""
        return bool(self.version) and all(self.passed.values()) and set(self.client.checks) <= self.passed.keys()

    def columns(self) -> list[str]:
        """Return the row's text, column by column."""
        checks = [self._check(column) for column in COLUMNS]
        name = f"{self.client.package} ({self.client.language})"
        return [name, self.version or "missing", *checks, "pass" if self.passes else "FAIL"]

    def _check(self, column: str) -> str:
        if column == "retry" and NO_RETRY in self.client.checks:
            return self._outcome(NO_RETRY, "raises")
        return self._outcome(column, "ok")

    def _outcome(self, check: str, passed: str) -> str:
        if check in self.passed:
            return passed if self.passed[check] else "FAIL"
        return "not run" if check in self.client.checks else "–"


def read_clients(file: Path) -> list[Client]:
    """Read the list of clients."""
    listed = tomllib.loads(file.read_text("utf-8"))["client"]
    return [Client(**{**row, "checks": tuple(row["checks"])}) for row in listed]


def unlisted(folder: Path, clients: Iterable[Client]) -> list[str]:
    """Return the test files that no client is listed with."""
    found = {
        path.relative_to(folder).as_posix()
        for language in ("python", "node")
        for pattern in TEST_FILES
        for path in (folder / language).glob(f"*/{pattern}")
    }
    return sorted(found - {client.path for client in clients})


def checks_passed(report: str) -> dict[str, bool]:
    """Parse a JUnit report: whether all tests of a check passed, for each check that has tests."""
    passed: dict[str, bool] = {}
    for names, case in _cases(ET.fromstring(report), ()):  # noqa: S314 — our own tests wrote it
        check = next((found for found in map(_check_of, names) if found), "other")
        ok = not any(case.find(outcome) is not None for outcome in ("failure", "error", "skipped"))
        passed[check] = passed.get(check, True) and ok
    return passed


def _cases(element: ET.Element, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ET.Element]]:
    """Yield every test case, with its name and those of its test suites."""
    for child in element:
        path = (*names, child.get("name", ""))
        if child.tag == "testcase":
            yield path, child
        elif child.tag == "testsuite":
            yield from _cases(child, path)


def _check_of(name: str) -> str | None:
    """Return the check that the first word of a test's name stands for."""
    first_word = name.removeprefix("test_")
    return next((check for check in (NO_RETRY, *COLUMNS) if first_word.startswith(check)), None)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [["client", "installed", *COLUMNS, "result"], *(row.columns() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
