"""Do others' own test suites pass against nearfar? Each runs unchanged, in an environment of its own, pinned.

``make test-suites``, or ``python tests/client_matrix/suites.py --only vllm``. suites.toml lists them, and the tests
that are known to fail with the reasons. The exit code is 1 if another test fails, if a listed one passes, or if the
number of tests isn't the listed one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from environments import BUILT, HERE, NotInstalledError, PythonEnvironment, run_tests
from flaky import flaky
from run import serving

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S = 3600
_BAD = ("failure", "error", "skipped")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite: its environment, a folder here, and the arguments of pytest that run it."""

    package: str
    environment: str
    arguments: tuple[str, ...]
    tests: int
    # A regular expression for tests' names, and why they fail.
    fails: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a suite's tests did, by name."""

    suite: Suite
    version: str = ""
    passed: dict[str, bool] = field(default_factory=dict)

    def reason(self, test: str) -> str:
        """Return why a test is known to fail; empty if it isn't."""
        return next((reason for pattern, reason in self.suite.fails.items() if re.search(pattern, test)), "")

    def problems(self) -> list[str]:
        """Return what isn't as listed."""
        found = [
            f"{test}: {'passes, but is listed as failing' if passed else 'FAIL'}"
            for test, passed in self.passed.items()
            if passed == bool(self.reason(test))
        ]
        stale = [pattern for pattern in self.suite.fails if not any(re.search(pattern, test) for test in self.passed)]
        found += [f"{pattern}: matches no test" for pattern in stale]
        if len(self.passed) != self.suite.tests:
            found.append(f"{len(self.passed)} tests ran; {self.suite.tests} are listed")
        return found

    def summary(self) -> list[str]:
        """Return the suite's lines: how many pass, and how many fail for each reason."""
        reasons = Counter(self.reason(test) or "not listed" for test, passed in self.passed.items() if not passed)
        lines = [f"{self.suite.package} {self.version}: {sum(self.passed.values())} of {len(self.passed)} pass"]
        return lines + [f"  {count} fail: {reason}" for reason, count in reasons.most_common()]


def read_suites(file: Path) -> list[Suite]:
    """Read the list of suites."""
    listed = tomllib.loads(file.read_text("utf-8"))["suite"]
    return [Suite(**{**row, "arguments": tuple(row["arguments"])}) for row in listed]


def outcomes(report: str) -> dict[str, bool]:
    """Parse a JUnit report: whether each test passed. A skipped one didn't."""
    cases = ET.fromstring(report).iter("testcase")  # noqa: S314 — our own tests wrote it
    passed: dict[str, bool] = {}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        passed[name] = passed.get(name, True) and all(case.find(outcome) is None for outcome in _BAD)
    return passed


def run_suite(suite: Suite, variables: dict[str, str]) -> Outcome:
    """Install a suite's environment, prepare what it needs, and run its tests."""
    environment = PythonEnvironment(suite.environment)
    environment.ensure_installed()
    cache = {"HF_HUB_CACHE": str(environment.folder / "hub"), "HF_HUB_OFFLINE": "1"}  # nothing is downloaded
    variables = {**variables, **cache, "SUITE_FOLDER": str(environment.folder), "SUITE_PYTHON": sys.executable}
    prepare = environment.source / "prepare.py"
    if prepare.exists():
        shared = {"PYTHONPATH": str(HERE.parent / "support")}
        subprocess.run([sys.executable, prepare], env={**os.environ, **variables, **shared}, check=True)
    version = environment.version(suite.package)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.xml"
        arguments = [one.format(folder=environment.folder) for one in suite.arguments]
        command = [str(environment.python), "-m", "pytest", "-q", "--tb=short", f"--junitxml={file}", *arguments]
        path = os.pathsep.join(map(str, (HERE / "python", environment.source)))
        ran = run_tests(command, environment.source, {**variables, "PYTHONPATH": path}, TIMEOUT_S)
        found = Outcome(suite, version, outcomes(file.read_text()) if file.exists() else {})
    if found.problems():
        print(ran.stdout, flush=True)
    return found


def run_all(suites: Sequence[Suite]) -> int:
    """Run the suites against one server, print what they did, and return the exit code."""
    failed = False
    with serving("") as url, flaky(url) as flaky_url:  # some clients can't send a key
        variables = {"NEARFAR_URL": url, "NEARFAR_KEY": "unused", "NEARFAR_FLAKY_URL": flaky_url}
        for suite in suites:
            try:
                found = run_suite(suite, variables)
            except (NotInstalledError, subprocess.CalledProcessError) as error:
                print(f"{suite.package} can't be installed: {error}", flush=True)
                failed = True
                continue
            print("\n".join((*found.summary(), *found.problems())), flush=True)
            failed = failed or bool(found.problems())
    return int(failed)


def main() -> int:
    """Run the suites that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", default=[], metavar="PACKAGE")
    only = parser.parse_args().only
    suites = read_suites(HERE / "suites.toml")
    if unknown := {*only} - {suite.package for suite in suites}:
        raise SystemExit(f"no suite is named {', '.join(sorted(unknown))}")
    BUILT.mkdir(exist_ok=True)
    return run_all([suite for suite in suites if not only or suite.package in only])


if __name__ == "__main__":
    sys.exit(main())
