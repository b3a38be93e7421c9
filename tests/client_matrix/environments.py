"""One environment for each folder of tests, made from its pinned requirements, and made again only when they change.

Node's folders are copied, so that nothing is installed among the sources; Python's tests run where they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rows import Client

HERE = Path(__file__).parent
MADE = HERE / ".environments"
ROW_S = 180  # the longest that one client's checks may take
_QUIET = {  # no telemetry, and no way round to this machine
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}

_ASK_VERSION = "import sys, importlib.metadata; print(importlib.metadata.version(sys.argv[1]))"
_NODE_VERSION = (
    "console.log(JSON.parse(require('fs').readFileSync(`node_modules/${process.argv[1]}/package.json`)).version)"
)


class NotInstalledError(Exception):
    """An environment can't be made."""


class Environment:
    """A folder of tests and what is installed for it."""

    def __init__(self, name: str) -> None:
        self.name, self.source, self.made = name, HERE / name, MADE / name

    def make(self) -> None:
        """Install what the folder asks for, unless that has been done for the same requirements."""
        stamp, asked = self.made / "installed", self.asked()
        if stamp.exists() and stamp.read_text() == asked:
            return
        shutil.rmtree(self.made, ignore_errors=True)
        self.install()
        stamp.write_text(asked)

    def asked(self) -> str:
        """Give a hash that changes with what is asked for, or with the interpreter."""
        raise NotImplementedError

    def install(self) -> None:
        """Make the environment anew."""
        raise NotImplementedError

    def version(self, package: str) -> str:
        """Give the version that is installed; nothing if there is none."""
        raise NotImplementedError

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run a client's checks; give their report in JUnit's form, or nothing, and what was printed."""
        raise NotImplementedError

    def _hash(self, file: str, interpreter: str) -> str:
        try:
            asked = (self.source / file).read_bytes()
        except OSError as error:
            raise NotInstalledError(f"{self.name}: {error}") from error
        return hashlib.sha256(asked + interpreter.encode()).hexdigest()


class PythonEnvironment(Environment):
    """A venv of its own, beside pytest."""

    @property
    def _python(self) -> Path:
        return self.made / "bin" / "python"

    def asked(self) -> str:
        """Give the hash of requirements.txt."""
        return self._hash("requirements.txt", sys.version)

    def install(self) -> None:
        """Make the venv; our own pip installs into it."""
        _run([sys.executable, "-m", "venv", "--without-pip", str(self.made)], HERE)
        pip = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "-qq", "--no-input"]
        _run([*pip, "--requirement", str(self.source / "requirements.txt")], HERE)

    def version(self, package: str) -> str:
        """Ask the venv's own interpreter."""
        return _said([str(self._python), "-c", _ASK_VERSION, package], self.made)

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run one file with pytest."""
        variables = {**variables, "PYTHONPATH": str(HERE / "python")}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.xml"
            command = [str(self._python), "-m", "pytest", "-q", f"--junitxml={file}", client.file]
            printed = _tests(command, self.source, variables).stdout
            return (file.read_text() if file.exists() else ""), printed


class NodeEnvironment(Environment):
    """A copy of the folder with its node_modules."""

    def asked(self) -> str:
        """Give the hash of package-lock.json."""
        return self._hash("package-lock.json", _said(["node", "--version"], HERE))

    def install(self) -> None:
        """Install exactly what the lock file says."""
        self.made.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.source / name, self.made)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], self.made)

    def version(self, package: str) -> str:
        """Read the installed package's own word."""
        return _said(["node", "-e", _NODE_VERSION, package], self.made)

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run one file with Node's own test runner, on a fresh copy of the sources."""
        for folder in (self.source.parent, self.source):
            for source in folder.glob("*.mjs"):
                shutil.copy(source, MADE / folder.relative_to(HERE))
        command = ["node", "--test", "--test-reporter=junit", client.file]
        ran = _tests(command, self.made, variables)
        return ran.stdout if ran.stdout.lstrip().startswith("<?xml") else "", ran.stdout


def environment(name: str) -> Environment:
    """Give the environment of a folder, which need not be made yet."""
    return (PythonEnvironment if name.startswith("python/") else NodeEnvironment)(name)


def _run(command: Sequence[str], folder: Path) -> None:
    """Run a step of an installation; a failure is told with all that was printed."""
    try:
        ran = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise NotInstalledError(str(error)) from error
    if ran.returncode:
        raise NotInstalledError(f"{' '.join(command)}:\n{ran.stdout}")


def _said(command: Sequence[str], folder: Path) -> str:
    """Give what a command prints, or nothing where it fails."""
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if ran.returncode else ran.stdout.strip()


def _tests(command: Sequence[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run tests with none of our own settings or keys about; tests that hang have failed."""
    inherited = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    together = {**inherited, **variables, **_QUIET}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=together,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=ROW_S,
        )
    except subprocess.TimeoutExpired as error:
        said = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output
        return subprocess.CompletedProcess(command, 1, f"{said}\nstopped after {ROW_S} s")


def _is_ours(name: str) -> bool:
    return name.startswith(("NEARFAR_", "PYTHON", "VIRTUAL_ENV", "NODE_OPTIONS")) or name.endswith(
        ("_KEY", "_BASE_URL")
    )
