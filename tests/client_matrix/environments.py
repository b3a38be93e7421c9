"""One environment per folder of tests, built from its pinned requirements and rebuilt only when they change.

Node.js test files are copied, so that nothing is installed in the source tree; Python tests run in place.
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
BUILT = HERE / ".environments"
TIMEOUT_S = 180  # for all checks of one client
_ENVIRONMENT = {  # no telemetry, no proxy for this machine
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}

_PYTHON_VERSION = "import sys, importlib.metadata; print(importlib.metadata.version(sys.argv[1]))"
_NODE_VERSION = (
    "console.log(JSON.parse(require('fs').readFileSync(`node_modules/${process.argv[1]}/package.json`)).version)"
)


class NotInstalledError(Exception):
    """An environment can't be installed."""


class Environment:
    """A folder of tests and the packages installed for it."""

    def __init__(self, name: str) -> None:
        self.name, self.source, self.folder = name, HERE / name, BUILT / name

    def ensure_installed(self) -> None:
        """Install the requirements, unless the same ones are installed already."""
        stamp, requirements = self.folder / "installed", self.requirements_hash()
        if stamp.exists() and stamp.read_text() == requirements:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.install()
        stamp.write_text(requirements)

    def requirements_hash(self) -> str:
        """Return a hash of the requirements and the interpreter's version."""
        raise NotImplementedError

    def install(self) -> None:
        """Create the environment."""
        raise NotImplementedError

    def version(self, package: str) -> str:
        """Return the installed version; empty if the package is missing."""
        raise NotImplementedError

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run a client's tests; return their JUnit report (empty if there is none) and their output."""
        raise NotImplementedError

    def _hash(self, file: str, interpreter: str) -> str:
        try:
            requirements = (self.source / file).read_bytes()
        except OSError as error:
            raise NotInstalledError(f"{self.name}: {error}") from error
        return hashlib.sha256(requirements + interpreter.encode()).hexdigest()


class PythonEnvironment(Environment):
    """A separate venv."""

    @property
    def python(self) -> Path:
        """Return the venv's interpreter."""
        return self.folder / "bin" / "python"

    def requirements_hash(self) -> str:
        """Return the hash of requirements.txt."""
        return self._hash("requirements.txt", sys.version)

    def install(self) -> None:
        """Create the venv and install into it with our own pip."""
        _run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)], HERE)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "-qq", "--no-input"]
        _run([*pip, "--requirement", str(self.source / "requirements.txt")], HERE)

    def version(self, package: str) -> str:
        """Return the version that the venv's interpreter finds."""
        return _output([str(self.python), "-c", _PYTHON_VERSION, package], self.folder)

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run one test file with pytest."""
        variables = {**variables, "PYTHONPATH": str(HERE / "python")}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.xml"
            command = [str(self.python), "-m", "pytest", "-q", f"--junitxml={file}", client.file]
            output = run_tests(command, self.source, variables).stdout
            return (file.read_text() if file.exists() else ""), output


class NodeEnvironment(Environment):
    """A copy of the folder, with node_modules."""

    def requirements_hash(self) -> str:
        """Return the hash of package-lock.json."""
        return self._hash("package-lock.json", _output(["node", "--version"], HERE))

    def install(self) -> None:
        """Install the versions in the lock file."""
        self.folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.source / name, self.folder)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], self.folder)

    def version(self, package: str) -> str:
        """Return the version in the installed package's package.json."""
        return _output(["node", "-e", _NODE_VERSION, package], self.folder)

    def report(self, client: Client, variables: dict[str, str]) -> tuple[str, str]:
        """Run one test file with Node's test runner, on a fresh copy of the sources."""
        for folder in (self.source.parent, self.source):
            for source in folder.glob("*.mjs"):
                shutil.copy(source, BUILT / folder.relative_to(HERE))
        command = ["node", "--test", "--test-reporter=junit", client.file]
        ran = run_tests(command, self.folder, variables)
        return ran.stdout if ran.stdout.lstrip().startswith("<?xml") else "", ran.stdout


def environment(name: str) -> Environment:
    """Return the environment of a folder, installed or not."""
    return (PythonEnvironment if name.startswith("python/") else NodeEnvironment)(name)


def _run(command: Sequence[str], folder: Path) -> None:
    """Run an installation step. Raises NotInstalledError with all its output."""
    try:
        ran = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise NotInstalledError(str(error)) from error
    if ran.returncode:
        raise NotInstalledError(f"{' '.join(command)}:\n{ran.stdout}")


def _output(command: Sequence[str], folder: Path) -> str:
    """Return a command's output; empty if it fails."""
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if ran.returncode else ran.stdout.strip()


def run_tests(
    command: Sequence[str],
    folder: Path,
    variables: dict[str, str],
    timeout_s: float = TIMEOUT_S,
    stderr: int = subprocess.STDOUT,
) -> subprocess.CompletedProcess[str]:
    """Run tests without our own settings and API keys in their environment. Tests that time out fail."""
    inherited = {name: value for name, value in os.environ.items() if not _is_removed(name)}
    environment = {**inherited, **variables, **_ENVIRONMENT}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        output = error.output.decode(errors="replace") if isinstance(error.output, bytes) else error.output
        return subprocess.CompletedProcess(command, 1, f"{output}\nstopped after {timeout_s:g} s")


def _is_removed(name: str) -> bool:
    return name.startswith(("NEARFAR_", "PYTHON", "VIRTUAL_ENV", "NODE_OPTIONS")) or name.endswith(
        ("_KEY", "_BASE_URL")
    )
