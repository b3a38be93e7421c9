"""The suites of others can fail: by a test that isn't listed, by one that is and passes, and by a missing one."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites import Outcome, Suite, outcomes, read_suites

FOLDER = Path(__file__).parents[1] / "client_matrix"
SUITE = Suite(
    package="a", environment="suites/a", arguments=("test_a.py",), tests=2, fails={"test_one": "not supported"}
)


@pytest.mark.parametrize(
    ("passed", "problems"),
    [
        ({"test_one": False, "test_two": True}, []),
        ({"test_one": True, "test_two": True}, ["test_one: passes, but is listed as failing"]),
        ({"test_one": False, "test_two": False}, ["test_two: FAIL"]),
        ({"test_one": False}, ["1 tests ran; 2 are listed"]),
        ({}, ["test_one: matches no test", "0 tests ran; 2 are listed"]),
    ],
)
def test_what_is_not_as_listed_is_a_problem(passed: dict[str, bool], problems: list[str]) -> None:
    assert problems == Outcome(SUITE, "1.0", passed).problems()


def test_the_summary_counts_the_reasons() -> None:
    found = Outcome(SUITE, "1.0", {"test_one[x]": False, "test_one[y]": False, "test_two": True})

    assert ["a 1.0: 1 of 3 pass", "  2 fail: not supported"] == found.summary()


def test_a_skipped_test_did_not_pass() -> None:
    report = (
        "<testsuites><testsuite><testcase classname='a' name='b'><skipped/></testcase>"
        "<testcase classname='a' name='c'/></testsuite></testsuites>"
    )

    assert {"a::b": False, "a::c": True} == outcomes(report)


def test_every_listed_suite_has_its_requirements_and_a_reason_for_each_failure() -> None:
    suites = read_suites(FOLDER / "suites.toml")

    assert [] == [one.package for one in suites if not (FOLDER / one.environment / "requirements.txt").is_file()]
    assert [] == [part for one in suites for part, reason in one.fails.items() if not reason]
    assert all(suite.tests for suite in suites)
