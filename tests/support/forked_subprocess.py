"""In place of ``subprocess`` where a reference is computed: forks a process that has already imported the libraries.

A new process takes seconds to import them, for each of over a thousand comparisons.
"""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path
from subprocess import TimeoutExpired
from typing import IO

from nearfar.serving.verification import reference

__all__ = ["Popen", "TimeoutExpired"]

_context = get_context("forkserver")
_context.set_forkserver_preload(["sentence_transformers", "transformers", reference.__name__])


class Popen:
    """Runs ``python -m nearfar.serving.verification.reference IN OUT`` as the module's own would."""

    def __init__(self, command: list[str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        assert stdout is stderr
        self._process = _context.Process(target=_run, args=(command, stdout.name))
        self._process.start()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired("reference", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """End the process."""
        self._process.kill()


def _run(command: list[str], log: str) -> None:
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    source, target = command[-2:]
    reference.main(Path(source), Path(target), has_library=True)
